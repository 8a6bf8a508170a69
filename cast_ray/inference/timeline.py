"""What a timeline is: the windows of a long video, the segments that they make, and both as JSON and CSV."""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cast_ray.inference.answer import Probabilities, best_classes
from cast_ray.labels import LabelMap

__all__ = ["THRESHOLD", "Segment", "Timeline", "Window"]

THRESHOLD = 0.3
"""Probability from which the best class of a window counts as seen."""


@dataclass(frozen=True, kw_only=True)
class Window:
    """One place of the sliding window."""

    start_s: float
    stop_s: float
    probabilities: Probabilities | None
    """None: this part of the video cannot be read."""
    reason: str = ""
    """Why not, or why its sound was not heard."""


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A stretch in which the same class of a field stays on top."""

    field: str
    """Label field, or "action"."""
    name: str
    """The class."""
    start_s: float
    stop_s: float
    probability: float
    """Mean over its windows."""


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """What a model sees in the course of a video."""

    video: str
    label_map: LabelMap
    windows: tuple[Window, ...]
    """By time; neighbours may overlap."""
    window_s: float
    stride_s: float
    seconds: float
    """Length of the video."""

    def segments(self, threshold: float = THRESHOLD) -> list[Segment]:
        """Neighbouring windows with the same best class become one segment; where none is probable, there is none.

        Windows overlap, segments of a field do not: each window stands for the time that is nearer to its middle than
        to any other's.

        Args:
            threshold: least probability that the best class of a window must have.
        """
        bounds = self._bounds()
        best = [
            None if window.probabilities is None else best_classes(self.label_map, window.probabilities, 1)
            for window in self.windows
        ]
        fields = next((list(scores) for scores in best if scores is not None), [])
        segments = []
        for field in fields:
            tops = [None if scores is None else scores[field][0] for scores in best]
            names = [None if top is None or top.probability < threshold else top.name for top in tops]
            for name, group in itertools.groupby(range(len(tops)), key=names.__getitem__):
                places = list(group)
                if name is not None:
                    scores = [top.probability for place in places if (top := tops[place]) is not None]
                    segments.append(
                        Segment(
                            field=field,
                            name=name,
                            start_s=bounds[places[0]],
                            stop_s=bounds[places[-1] + 1],
                            probability=sum(scores) / len(scores),
                        )
                    )
        return segments

    def _bounds(self) -> list[float]:
        """Where one window's time ends and the next one's begins, with the beginning and the end of all."""
        middles = [(window.start_s + window.stop_s) / 2 for window in self.windows]
        between = [(one + other) / 2 for one, other in itertools.pairwise(middles)]
        return [self.windows[0].start_s, *between, self.windows[-1].stop_s]

    def to_dict(self, *, threshold: float = THRESHOLD, top: int = 5) -> dict[str, Any]:
        """What JSON holds of it: segments, and the `top` classes of every window."""
        return {
            "video": self.video,
            "seconds": self.seconds,
            "window_s": self.window_s,
            "stride_s": self.stride_s,
            "threshold": threshold,
            "segments": [_row(segment) for segment in self.segments(threshold)],
            "windows": [self._window(window, top) for window in self.windows],
        }

    def _window(self, window: Window, top: int) -> dict[str, Any]:
        values: dict[str, Any] = {"start_s": round(window.start_s, 3), "stop_s": round(window.stop_s, 3)}
        if window.probabilities is not None:
            best = best_classes(self.label_map, window.probabilities, top)
            values["top"] = {
                field: [{"class": score.name, "probability": score.probability} for score in scores]
                for field, scores in best.items()
            }
        return values | ({"note": window.reason} if window.reason else {})

    def to_json(self, *, threshold: float = THRESHOLD, top: int = 5) -> str:
        return json.dumps(self.to_dict(threshold=threshold, top=top), indent=2, ensure_ascii=False) + "\n"

    def to_csv(self, *, threshold: float = THRESHOLD) -> str:
        """The segments: start_s, stop_s, class, probability, field."""
        return segments_csv(self.segments(threshold))

    def strongest(self, field: str, count: int) -> list[int]:
        """Indices of the classes of a field that are most probable anywhere, the most probable on average first."""
        rows = [window.probabilities[field] for window in self.windows if window.probabilities is not None]
        stacked = np.stack(rows)
        peaks = np.argsort(-stacked.max(axis=0), kind="stable")[:count]
        return sorted(peaks.tolist(), key=lambda index: -float(stacked[:, index].mean()))


def segments_csv(segments: Sequence[Segment]) -> str:
    """A table with a header."""
    target = io.StringIO()
    columns = ["start_s", "stop_s", "class", "probability", "field"]
    writer = csv.DictWriter(target, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(_row(segment) for segment in segments)
    return target.getvalue()


def _row(segment: Segment) -> dict[str, Any]:
    return {
        "start_s": round(segment.start_s, 3),
        "stop_s": round(segment.stop_s, 3),
        "class": segment.name,
        "probability": round(segment.probability, 4),
        "field": segment.field,
    }
