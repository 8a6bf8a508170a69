"""How runs learnt: their logs as line charts, several runs in one chart."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from cast_ray.report.charts import Line, LineChart, Points

__all__ = ["learning_charts"]

History: TypeAlias = Sequence[Mapping[str, Any]]

MOST_POINTS = 1500


def learning_charts(runs: Mapping[str, History]) -> dict[str, LineChart]:
    """Charts by name, over epochs, which runs of other batch sizes share; those without data are left out.

    Args:
        runs: name of a run -> its log (`cast_ray.training.progress`); rows that lack a number are passed over.
    """
    fields = dict.fromkeys(name for history in runs.values() for name in _validated(history))
    charts = {"loss": _chart("Loss" if len(runs) == 1 else "Loss (dashed: validation)", "loss", _loss_lines(runs))}
    if len(runs) == 1:
        lines = [
            Line(name=field, points=_validation(history, f"{field}_top1"), colour=index)
            for history in runs.values()
            for index, field in enumerate(fields)
        ]
        charts["validation"] = _chart("Validation accuracy", "top-1", lines, ".1%", fraction=True)
    else:
        for field in fields:
            points = {name: _validation(history, f"{field}_top1") for name, history in runs.items()}
            title = "Validation accuracy" if len(fields) == 1 else f"Validation accuracy, {field}"
            charts[f"validation-{field}"] = _chart(title, "top-1", _per_run(points), ".1%", fraction=True)
    for key, column, title, axis, y_format in (
        ("rate", "learning_rate", "Learning rate", "learning rate", ".3~g"),
        ("wait", "data_wait", "Time spent waiting for data", "share of time", ".0%"),
        ("speed", "clips_per_s", "Speed", "training clips/s", ".4~g"),
    ):
        points = {name: _thin(_series(history, column)) for name, history in runs.items()}
        charts[key] = _chart(title, axis, _per_run(points), y_format, fraction=key == "wait")
    return {name: chart for name, chart in charts.items() if chart.lines}


def _chart(title: str, y: str, lines: list[Line], y_format: str = ".4~g", *, fraction: bool = False) -> LineChart:
    drawn = tuple(line for line in lines if line.points)
    return LineChart(title=title, x="epoch", y=y, lines=drawn, y_format=y_format, fraction=fraction)


def _per_run(points: Mapping[str, Points]) -> list[Line]:
    return [Line(name=name, points=of_run, colour=index) for index, (name, of_run) in enumerate(points.items())]


def _loss_lines(runs: Mapping[str, History]) -> list[Line]:
    """Training loss smoothed, of a single run also raw, and the validation loss dashed."""
    lines = []
    for index, (name, history) in enumerate(runs.items()):
        raw, alone = _series(history, "loss"), len(runs) == 1
        if alone and len(raw) > 1:
            lines.append(Line(name="", points=_thin(raw), colour=index, style="faint", listed=False))
        training, validation = ("training", "validation") if alone else (name, f"{name}, validation")
        lines.append(Line(name=training, points=_thin(_smooth(raw)), colour=index))
        points, colour = _validation(history, "loss"), 1 if alone else index
        lines.append(Line(name=validation, points=points, colour=colour, style="dashed", listed=alone))
    return lines


def _validated(history: History) -> list[str]:
    """The label fields (and the action) that were validated."""
    rows = [row.get("validation") or {} for row in history if row.get("kind") == "epoch"]
    return [name.removesuffix("_top1") for row in rows for name in row if name.endswith("_top1")]


def _validation(history: History, name: str) -> Points:
    rows = [row for row in history if row.get("kind") == "epoch"]
    return _points((row.get("epoch"), (row.get("validation") or {}).get(name)) for row in rows)


def _series(history: History, column: str) -> Points:
    return _points((row.get("epoch"), row.get(column)) for row in history if row.get("kind") == "step")


def _points(pairs: Any) -> Points:
    """The pairs of which both are finite numbers."""
    found = ((_finite(x), _finite(y)) for x, y in pairs)
    return [(x, y) for x, y in found if x is not None and y is not None]


def _finite(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _thin(points: Points) -> Points:
    """At most `MOST_POINTS` points: the means of equally many neighbours, so that a long run stays a small page."""
    bucket = -(-len(points) // MOST_POINTS)
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
