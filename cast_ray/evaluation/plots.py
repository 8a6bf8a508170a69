"""How numbers are drawn: the report's plotly figures, as pure functions.

A figure sets what both colour schemes share; what differs (text, grid, colour scale) is in `TEMPLATES`, which the page
exchanges when the reader's scheme changes. Text that comes from outside is escaped, because plotly reads markup in it.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go

__all__ = [
    "TEMPLATES",
    "confusion_figure",
    "data_wait_figure",
    "learning_rate_figure",
    "loss_figure",
    "plain_text",
    "validation_figure",
]

History = Sequence[Mapping[str, Any]]
Points = list[tuple[float, float]]

# Each has a contrast of at least 3:1 on the white and on the dark surface.
_COLOURS = ("#3f7cf0", "#d0722a", "#2a9570", "#a463d8")
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"
_MAX_POINTS = 1500
_MAX_TICKED_CLASSES = 60
_MAX_COUNTED_CLASSES = 12
_MAX_TICK_CHARACTERS = 22


def _template(text: str, grid: str, surface: str, scale: Sequence[str]) -> dict[str, Any]:
    axis = {"gridcolor": grid, "linecolor": grid, "zerolinecolor": grid, "tickcolor": grid}
    hover = {"bgcolor": surface, "bordercolor": grid, "font": {"color": text}}
    spread = [[index / (len(scale) - 1), colour] for index, colour in enumerate(scale)]
    return {
        "layout": {
            "font": {"color": text},
            "xaxis": axis,
            "yaxis": axis,
            "hoverlabel": hover,
            "coloraxis": {"colorscale": spread},
            "modebar": {"bgcolor": surface, "color": text, "activecolor": text},
        }
    }


TEMPLATES: dict[str, dict[str, Any]] = {
    "light": _template("#3d4656", "#dfe4ec", "#ffffff", ("#d5e3fc", "#94b6f5", "#3f7cf0", "#173f94")),
    "dark": _template("#b9c3d3", "#2c3645", "#1c2430", ("#24406f", "#2f62b5", "#4d8df5", "#b3d0ff")),
}
"""Colour scheme -> plotly template."""


def plain_text(text: str) -> str:
    """`text` so that plotly shows it as it is, whatever markup it contains."""
    return html.escape(text, quote=False)


def loss_figure(history: History) -> go.Figure:
    """Training loss by step, raw and smoothed, and the validation loss; no traces when nothing was recorded."""
    raw = _series(history, "step", "loss")
    validation = [
        (float(record["step"]), loss)
        for record in history
        if record.get("kind") == "epoch" and (loss := _finite(record.get("validation", {}).get("loss"))) is not None
    ]
    figure = _line_figure({"training": _smooth(raw), "validation": validation}, x="step", y="loss", y_format=".4~g")
    if len(raw) > 1:
        steps, losses = zip(*_thin(raw), strict=True)
        faint = {"color": _COLOURS[0], "width": 1}
        figure.add_scatter(x=steps, y=losses, line=faint, opacity=0.35, zorder=-1, hoverinfo="skip", showlegend=False)
    return figure


def learning_rate_figure(history: History) -> go.Figure:
    """Learning rate by step; no traces when nothing was recorded."""
    points = _series(history, "step", "learning_rate")
    return _line_figure({"learning rate": points}, x="step", y="learning rate", y_format=".3~g")


def data_wait_figure(history: History) -> go.Figure:
    """Share of the time in which the device waited for data, by step; no traces when nothing was recorded."""
    points = _series(history, "step", "data_wait")
    return _line_figure({"waiting for data": points}, x="step", y="share of time", y_format=".0%", fraction=True)


def validation_figure(history: History) -> go.Figure:
    """Top-1 accuracy on the validation split by epoch, one line per label field (and for the action)."""
    lines: dict[str, Points] = {}
    for record in history:
        if record.get("kind") != "epoch":
            continue
        for name, value in record.get("validation", {}).items():
            if name.endswith("_top1") and (accuracy := _finite(value)) is not None:
                lines.setdefault(name.removesuffix("_top1"), []).append((float(record["epoch"]), accuracy))
    return _line_figure(lines, x="epoch", y="top-1 accuracy", y_format=".1%", fraction=True)


def confusion_figure(confusion: npt.NDArray[np.int64], names: Sequence[str]) -> go.Figure:
    """A confusion matrix whose colours are shares of the true class; hover tells names, count and share.

    Cells without clips stay blank, which keeps a matrix of hundreds of classes small and readable. Beyond 60 classes
    the axes have no names either; the hover has. `layout.meta.classes` tells the page how many there are.

    Args:
        confusion: [classes, classes] clip counts, true class in the row.
        names: class names in index order.
    """
    num_classes = len(names)
    share = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    escaped = [plain_text(name) for name in names]
    hover = np.full(confusion.shape, None, dtype=object)
    for row, column in np.argwhere(confusion):
        hover[row, column] = (
            f"true: <b>{escaped[row]}</b><br>predicted: <b>{escaped[column]}</b><br>"
            f"{_clips(int(confusion[row, column]))}, {share[row, column]:.1%} of the true class"
        )
    heatmap = go.Heatmap(
        z=np.where(confusion > 0, share, np.nan).round(4).astype(np.float32),
        customdata=hover,
        hovertemplate="%{customdata}<extra></extra>",
        hoverongaps=False,
        coloraxis="coloraxis",
        xgap=1 if num_classes <= _MAX_TICKED_CLASSES else 0,
        ygap=1 if num_classes <= _MAX_TICKED_CLASSES else 0,
    )
    if num_classes <= _MAX_COUNTED_CLASSES:
        heatmap.update(text=np.where(confusion > 0, confusion.astype(str), ""), texttemplate="%{text}")
    figure = go.Figure(heatmap, layout=_layout(height=min(max(420, 240 + 24 * num_classes), 760)))
    ticks: dict[str, Any] = {"showticklabels": False}
    if num_classes <= _MAX_TICKED_CLASSES:
        size = 12 if num_classes <= 20 else 9
        labels = [plain_text(_shorten(name)) for name in names]
        ticks = {"tickvals": list(range(num_classes)), "ticktext": labels, "tickfont": {"size": size}}
    common = {
        "range": [-0.5, num_classes - 0.5],
        "showgrid": False,
        "zeroline": False,
        "ticks": "",
        "showline": True,
        "mirror": True,
        **ticks,
    }
    figure.update_xaxes(title={"text": "predicted", "standoff": 10}, tickangle=-45, **common)
    figure.update_yaxes(title={"text": "true", "standoff": 10}, **common | {"range": [num_classes - 0.5, -0.5]})
    bar = {"tickformat": ".0%", "thickness": 10, "outlinewidth": 0, "len": 1, "tickfont": {"size": 11}}
    figure.update_layout(coloraxis={"cmin": 0, "cmax": 1, "colorbar": bar}, meta={"classes": num_classes})
    return figure


def _line_figure(lines: Mapping[str, Points], *, x: str, y: str, y_format: str, fraction: bool = False) -> go.Figure:
    """Lines of (x, y) points; those without points are left out. `fraction` fixes the y axis to 0..1."""
    lines = {name: _thin(points) for name, points in lines.items() if points}
    figure = go.Figure(layout=_layout(height=300))
    for index, (name, points) in enumerate(lines.items()):
        xs, ys = zip(*points, strict=True)
        figure.add_scatter(
            x=xs,
            y=ys,
            name=plain_text(name),
            # A lone point has no line to be seen by.
            mode="lines+markers" if len(points) <= 40 else "lines",
            line={"color": _COLOURS[index % len(_COLOURS)], "width": 2},
            hovertemplate=f"{plain_text(name)}: %{{y:{y_format}}}<extra></extra>",
        )
    figure.update_xaxes(title={"text": x, "standoff": 10}, hoverformat=".6~g", nticks=8)
    figure.update_yaxes(
        title={"text": y, "standoff": 12}, tickformat=".0%" if fraction else None, range=[0, 1.03] if fraction else None
    )
    figure.update_layout(hovermode="x unified", showlegend=len(lines) > 1)
    return figure


def _layout(*, height: int) -> dict[str, Any]:
    return {
        "template": "none",
        "height": height,
        "margin": {"l": 12, "r": 12, "t": 28, "b": 12},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": _FONT, "size": 12},
        "hoverlabel": {"font": {"family": _FONT}, "align": "left"},
        "legend": {"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom", "itemclick": False},
        "xaxis": {"automargin": True},
        "yaxis": {"automargin": True},
    }


def _series(history: History, x: str, y: str) -> Points:
    """The (x, y) points of the step records that have both as finite numbers."""
    steps = (record for record in history if record.get("kind") == "step")
    pairs = ((_finite(record.get(x)), _finite(record.get(y))) for record in steps)
    return [(at, value) for at, value in pairs if at is not None and value is not None]


def _finite(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _thin(points: Points) -> Points:
    """At most `_MAX_POINTS` points: the means of equally many neighbours, so that a long run stays a small page."""
    bucket = -(-len(points) // _MAX_POINTS)
    if bucket <= 1:
        return points
    groups = (points[start : start + bucket] for start in range(0, len(points), bucket))
    return [(sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group)) for group in groups]


def _smooth(points: Points) -> Points:
    """Centred moving average over about 4 % of the points; the ends use what there is."""
    half = len(points) // 50
    totals = np.concatenate([[0.0], np.cumsum([y for _, y in points])])
    smooth: Points = []
    for index, (x, _) in enumerate(points):
        start, stop = max(0, index - half), min(len(points), index + half + 1)
        smooth.append((x, float((totals[stop] - totals[start]) / (stop - start))))
    return smooth


def _shorten(name: str) -> str:
    return name if len(name) <= _MAX_TICK_CHARACTERS else f"{name[: _MAX_TICK_CHARACTERS - 3].rstrip()}..."


def _clips(count: int) -> str:
    return "1 clip" if count == 1 else f"{count:,} clips"
