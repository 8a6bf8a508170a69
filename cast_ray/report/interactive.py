"""How charts become interactive: figures for plotly.js, as plain data that is small as JSON.

A figure sets what both colour schemes share; what differs (text, grid, colour scale) is in `TEMPLATES`, which the page
exchanges when the reader's scheme changes. Text that comes from outside is escaped, because plotly reads markup in it.
`layout.meta` tells the page's script what depends on the reader's screen: the names beside an axis.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

import numpy as np

from cast_ray.report.charts import COLOURS, BarChart, Bars, Chart, LineChart, MatrixChart

__all__ = ["TEMPLATES", "figure", "plain_text"]

Figure = dict[str, Any]

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"
ROW_PIXELS, FEW_POINTS, FEW_COLUMNS = 22, 40, 5
LOSS_COLOUR = COLOURS[4]


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


def figure(chart: Chart) -> Figure:
    """The chart as data, layout, title and `kind`; of a matrix the script makes the rest, see page.js."""
    if isinstance(chart, LineChart):
        drawn = _lines(chart)
    else:
        drawn = _bars(chart) if isinstance(chart, BarChart) else _matrix(chart)
    return drawn | {"title": chart.title}


def _lines(chart: LineChart) -> Figure:
    data = []
    for line in chart.lines:
        xs, ys = zip(*line.points, strict=True)
        trace: dict[str, Any] = {
            "type": "scatter",
            "x": [_short(x) for x in xs],
            "y": [_short(y) for y in ys],
            "line": {"color": COLOURS[line.colour % len(COLOURS)], "width": 2},
        }
        if line.style == "faint":
            trace |= {"mode": "lines", "opacity": 0.35, "hoverinfo": "skip"}
            trace["line"] = trace["line"] | {"width": 1}
        else:
            name = plain_text(line.name)
            # A lone point has no line to be seen by.
            mode = "lines+markers" if len(xs) <= FEW_POINTS else "lines"
            trace |= {"name": name, "mode": mode, "hovertemplate": f"{name}: %{{y:{chart.y_format}}}<extra></extra>"}
            if line.style == "dashed":
                trace["line"] = trace["line"] | {"dash": "dash"}
        data.append(trace | {"showlegend": line.listed})
    layout = _layout(height=300)
    layout["xaxis"] |= {"title": {"text": chart.x, "standoff": 10}, "hoverformat": ".6~g", "nticks": 8}
    layout["yaxis"] |= {"title": {"text": chart.y, "standoff": 12}}
    if chart.fraction:
        layout["yaxis"] |= {"tickformat": ".0%", "range": [0, 1.03]}
    named = sum(line.listed for line in chart.lines)
    return {"kind": "lines", "data": data, "layout": layout | {"hovermode": "x unified", "showlegend": named > 1}}


def _bars(chart: BarChart) -> Figure:
    across, along = ("y", "x") if chart.horizontal else ("x", "y")
    places = list(range(len(chart.labels)))
    notes = chart.notes or ("",) * len(places)
    told: list[list[Any]] = [
        [plain_text(label), plain_text(note)] for label, note in zip(chart.labels, notes, strict=True)
    ]
    data = []
    for bars in chart.series:
        value = f"%{{{along}:.{chart.decimals}f}}"
        name = f"{plain_text(bars.name)}: " if len(chart.series) > 1 or bars.name == "gain" else ""
        tail = "<br>%{customdata[1]}" if chart.notes else ""
        if bars.ends:
            tail = f" [%{{customdata[2]:.{chart.decimals}f}}, %{{customdata[3]:.{chart.decimals}f}}]{tail}"
            customdata = [[*one, *map(_short, ends)] for one, ends in zip(told, bars.ends, strict=True)]
        else:
            customdata = told
        data.append(
            {
                "name": plain_text(bars.name),
                across: places,
                along: [_short(one) for one in bars.values],
                "customdata": customdata,
                "hovertemplate": f"<b>%{{customdata[0]}}</b><br>{name}{value}{tail}<extra></extra>",
                **_marks(chart, bars),
            }
        )
    groups = 1 if chart.dots else len(chart.series)
    height = 110 + len(places) * (ROW_PIXELS if groups == 1 else 8 + 14 * groups) if chart.horizontal else 360
    layout = _layout(height=height)
    layout[f"{across}axis"] |= {"showgrid": chart.dots and chart.horizontal, "zeroline": False, "ticks": ""}
    layout[f"{across}axis"]["range"] = [len(places) - 0.5, -0.5] if chart.horizontal else [-0.5, len(places) - 0.5]
    layout[f"{along}axis"] |= {"title": {"text": chart.value, "standoff": 10}, "zeroline": True}
    if chart.limits is not None:
        low, high = chart.limits
        margin = 0.02 * (high - low) if chart.dots else 0.0  # else half a dot lies outside
        layout[f"{along}axis"]["range"] = [low - margin, high + margin]
    names = {across: [plain_text(label) for label in chart.labels]}
    few = not chart.horizontal and len(places) * len(chart.series) < FEW_COLUMNS
    layout |= {
        "barmode": "group",
        "bargap": 0.6 if few else 0.25,
        "hovermode": "closest",
        "showlegend": len(chart.series) > 1,
    }
    return {"kind": "bars", "data": data, "layout": layout | {"meta": {"names": names}}}


def _marks(chart: BarChart, bars: Bars) -> dict[str, Any]:
    colour = COLOURS[bars.colour % len(COLOURS)]
    if chart.dots:
        size = 8 if len(chart.labels) <= 2 * FEW_POINTS else 5
        return {"type": "scatter", "mode": "markers", "marker": {"color": colour, "size": size, "opacity": 0.85}}
    colours: Any = colour
    if bars.name == "gain":
        colours = [colour if value >= 0 else LOSS_COLOUR for value in bars.values]
    marks: dict[str, Any] = {
        "type": "bar",
        "orientation": "h" if chart.horizontal else "v",
        "marker": {"color": colours},
    }
    if bars.ends:
        marks["error_x" if chart.horizontal else "error_y"] = {
            "type": "data",
            "symmetric": False,
            "array": [_short(high - value) for value, (_, high) in zip(bars.values, bars.ends, strict=True)],
            "arrayminus": [_short(value - low) for value, (low, _) in zip(bars.values, bars.ends, strict=True)],
            "thickness": 1.2,
            "width": 3,
            "color": "#7a8699",
        }
    return marks


def _matrix(chart: MatrixChart) -> Figure:
    """Only the cells with clips: of 400 classes, a few thousand of 160,000."""
    return {
        "kind": "matrix",
        "names": [plain_text(name) for name in chart.names],
        "cells": np.asarray(chart.cells).tolist(),
        "support": np.asarray(chart.support).tolist(),
        "orders": [list(order) for order in chart.orders.values()],
        "layout": _layout(height=560),
    }


def _layout(*, height: int) -> dict[str, Any]:
    return {
        "height": height,
        "margin": {"l": 12, "r": 12, "t": 28, "b": 12},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": FONT, "size": 12},
        "hoverlabel": {"font": {"family": FONT}, "align": "left"},
        "legend": {"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom", "itemclick": False},
        "xaxis": {"automargin": True},
        "yaxis": {"automargin": True},
    }


def _short(value: float) -> float | None:
    """Six digits are enough for a plot; JSON has no NaN."""
    return float(f"{value:.6g}") if np.isfinite(value) else None
