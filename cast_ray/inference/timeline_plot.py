"""How a timeline is drawn: the strongest classes over time, and below them the segments."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cast_ray.inference.timeline import THRESHOLD, Segment, Timeline
from cast_ray.report.charts import COLOURS, shortened

__all__ = ["draw_timeline"]

LINES = 6
"""Classes of a field that have a line."""
OTHER = "#9aa3b2"
"""Segments of classes that have no line."""
WIDTH_IN, HEIGHT_IN = 10.0, 3.4
LONGEST_NAME = 44
MINUTES_FROM_S = 120.0


def draw_timeline(timeline: Timeline, paths: Sequence[Path], *, threshold: float = THRESHOLD) -> None:
    """Write a picture, in the format that each name's suffix says (.png, .svg).

    Each label field has a panel: lines of its strongest classes, and a band of its segments.
    """
    from matplotlib.figure import Figure  # not pyplot: it would look for a screen

    fields = list(timeline.label_map.names)
    figure = Figure(figsize=(WIDTH_IN, HEIGHT_IN * len(fields)), layout="constrained")
    panels = figure.subplots(2 * len(fields), 1, sharex=True, height_ratios=[6, 1] * len(fields), squeeze=False)[:, 0]
    segments = timeline.segments(threshold)
    for index, field in enumerate(fields):
        colours = _lines(panels[2 * index], timeline, field, threshold)
        _band(panels[2 * index + 1], [one for one in segments if one.field == field], colours)
    panels[-1].set_xlim(0, timeline.seconds)
    panels[-1].set_xlabel("time (min:s)" if timeline.seconds >= MINUTES_FROM_S else "time (s)")
    if timeline.seconds >= MINUTES_FROM_S:
        panels[-1].xaxis.set_major_formatter(lambda second, _: f"{int(second) // 60}:{int(second) % 60:02}")
    for path in paths:
        figure.savefig(path, dpi=150)


def _lines(panel: Any, timeline: Timeline, field: str, threshold: float) -> dict[str, str]:
    """Draw probabilities over time; the colour of each class that has a line."""
    names = timeline.label_map.names[field]
    middles = [(window.start_s + window.stop_s) / 2 for window in timeline.windows]
    colours = {}
    for colour, index in zip(COLOURS, timeline.strongest(field, LINES), strict=False):
        # A gap where the video cannot be read.
        values = [np.nan if one.probabilities is None else one.probabilities[field][index] for one in timeline.windows]
        marker = "o" if len(middles) < 40 else None
        panel.plot(middles, values, color=colour, linewidth=1.6, marker=marker, markersize=3, label=_name(names[index]))
        colours[names[index]] = colour
    panel.axhline(threshold, color=OTHER, linewidth=0.8, linestyle=":")
    panel.set_ylim(0, 1)
    panel.set_ylabel("probability")
    panel.set_title(field, loc="left", fontsize=10, parse_math=False)
    panel.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), fontsize=8, frameon=False)
    panel.spines[["top", "right"]].set_visible(False)
    return colours


def _band(panel: Any, segments: Sequence[Segment], colours: dict[str, str]) -> None:
    for one in segments:
        panel.axvspan(one.start_s, one.stop_s, color=colours.get(one.name, OTHER), linewidth=0)
    panel.set_yticks([])
    panel.set_ylim(0, 1)
    panel.spines[["top", "right", "left"]].set_visible(False)


def _name(name: str) -> str:
    """Short, and with dollar signs as they are: matplotlib takes what lies between two of them for a formula."""
    return shortened(name, LONGEST_NAME).replace("$", r"\$")
