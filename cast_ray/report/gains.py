"""What one run gains over another, class by class and by super-category (figures 5 and 11 to 14 of the CAST paper)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cast_ray.evaluation.class_frequency import accuracy_by_training_clips
from cast_ray.evaluation.metrics import PerClass
from cast_ray.evaluation.predictions import Predictions
from cast_ray.report.charts import BarChart, Bars

__all__ = [
    "ROWS",
    "Gain",
    "class_gains",
    "extreme_gains_chart",
    "f1_chart",
    "frequency_chart",
    "gains_chart",
    "group_f1",
    "group_gains",
]

ROWS = 30
"""Named rows of a chart of classes; of more classes, the best and the worst."""
POINTS = "F1 gain (points)"


@dataclass(frozen=True, kw_only=True)
class Gain:
    """How much better one thing is recognised by one run than by another, in points of F1 (0 to 100)."""

    name: str
    before: float
    after: float
    clips: int

    @property
    def points(self) -> float:
        return self.after - self.before

    @property
    def note(self) -> str:
        clips = "1 clip" if self.clips == 1 else f"{self.clips:,} clips"
        return f"F1 {self.before:.1f} to {self.after:.1f}, {clips}"


def class_gains(before: PerClass, after: PerClass, names: Sequence[str]) -> list[Gain]:
    """Of every class that has clips, the largest gain first."""
    gains = [
        Gain(name=names[index], before=100 * before.f1[index], after=100 * after.f1[index], clips=int(clips))
        for index, clips in enumerate(after.support)
        if clips
    ]
    return sorted(gains, key=lambda gain: -gain.points)


def group_f1(classes: PerClass, groups: Sequence[str]) -> dict[str, float]:
    """F1 of each super-category from 0 to 1: the mean over its classes, weighted with their numbers of clips."""
    totals: dict[str, list[float]] = {}
    for group, f1, clips in zip(groups, classes.f1, classes.support, strict=True):
        total = totals.setdefault(group, [0.0, 0.0])
        total[0] += f1 * clips
        total[1] += clips
    return {group: weighted / clips for group, (weighted, clips) in totals.items() if clips}


def group_gains(before: PerClass, after: PerClass, groups: Sequence[str]) -> list[Gain]:
    """Of every super-category that has clips, the largest gain first."""
    earlier, later = group_f1(before, groups), group_f1(after, groups)
    clips = dict.fromkeys(later, 0)
    for group, support in zip(groups, after.support, strict=True):
        if group in clips:
            clips[group] += int(support)
    gains = [
        Gain(name=name, before=100 * earlier[name], after=100 * f1, clips=clips[name]) for name, f1 in later.items()
    ]
    return sorted(gains, key=lambda gain: -gain.points)


def gains_chart(gains: Sequence[Gain], *, title: str, colour: int, horizontal: bool) -> BarChart:
    """A bar for each gain, in the order given."""
    return BarChart(
        title=title,
        value=POINTS,
        labels=tuple(gain.name for gain in gains),
        series=(Bars(name="gain", values=tuple(gain.points for gain in gains), colour=colour),),
        horizontal=horizontal,
        notes=tuple(gain.note for gain in gains),
    )


def extreme_gains_chart(gains: Sequence[Gain], *, title: str, colour: int) -> BarChart:
    """Named rows: all gains, or of more than `ROWS` the largest and the smallest."""
    shown = [*gains] if len(gains) <= ROWS else [*gains[: ROWS // 2], *gains[-ROWS // 2 :]]
    return gains_chart(shown, title=title, colour=colour, horizontal=True)


def f1_chart(runs: Mapping[str, PerClass], names: Sequence[str], *, title: str) -> BarChart:
    """F1 of every class with clips in every run, a dot each; sorted by the last run, the best first."""
    last = list(runs.values())[-1]
    classes = [index for index in np.argsort(-last.f1, kind="stable").tolist() if last.support[index]]
    return BarChart(
        title=title,
        value="F1 (%)",
        labels=tuple(names[index] for index in classes),
        series=tuple(
            Bars(name=name, values=tuple(float(100 * one.f1[index]) for index in classes), colour=number)
            for number, (name, one) in enumerate(runs.items())
        ),
        horizontal=len(classes) <= ROWS,
        dots=True,
        notes=tuple(f"{last.support[index]:,} clips" for index in classes),
        limits=(0.0, 100.0),
    )


def frequency_chart(
    runs: Mapping[str, Predictions], field: str, counts: npt.NDArray[np.int64], *, title: str
) -> BarChart:
    """Top-1 accuracy of every run by how many training clips the true class has; see `class_frequency`."""
    bins = {name: accuracy_by_training_clips(run, field, counts) for name, run in runs.items()}
    first = next(iter(bins.values()))
    labels = [f"{one.low:,} or more" if one.high is None else _range(one.low, one.high) for one in first]
    return BarChart(
        title=title,
        value="top-1 (%)",
        labels=tuple(labels),
        series=tuple(
            Bars(name=name, values=tuple(100 * one.accuracy for one in of_run), colour=number)
            for number, (name, of_run) in enumerate(bins.items())
        ),
        horizontal=False,
        notes=tuple(f"{one.classes:,} classes, {one.clips:,} test clips" for one in first),
        limits=(0.0, 100.0),
    )


def _range(low: int, high: int) -> str:
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
