"""What is in a report: the charts of all runs by name, and which of them stand in one place of the page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from cast_ray.errors import UserError
from cast_ray.evaluation.alignment import in_order_of
from cast_ray.evaluation.comparison import HARMONIC_MEAN, Assessment, Resampling, compare
from cast_ray.evaluation.metrics import PerClass
from cast_ray.report.charts import BarChart, Bars, Chart, Line, LineChart
from cast_ray.report.confusion import confusion_chart
from cast_ray.report.curves import learning_charts
from cast_ray.report.gains import (
    ROWS,
    Gain,
    class_gains,
    extreme_gains_chart,
    f1_chart,
    frequency_chart,
    gains_chart,
    group_f1,
    group_gains,
)
from cast_ray.report.record import RunRecord

__all__ = ["MOST_RUNS", "Contents", "Slot", "figure_words", "letters", "make_contents"]

MOST_RUNS = 8
"""As many as there are colours to tell them apart."""


@dataclass(frozen=True, kw_only=True)
class Slot:
    """One place of the page, and the charts that the reader can choose for it; the first is shown at first."""

    title: str
    choices: Mapping[str, str]
    """Words for the choice -> name of the chart."""


@dataclass(frozen=True, kw_only=True)
class Contents:
    """Runs with their clips in the same order, what they are worth, and all charts."""

    runs: tuple[RunRecord, ...]
    assessed: tuple[Assessment, ...]
    charts: Mapping[str, Chart]
    """By name, which is also that of the picture file."""
    sections: Mapping[str, Sequence[Slot]]
    """Section -> its places."""
    level: float
    """Of the confidence intervals."""


def letters(count: int) -> list[str]:
    """Short names of runs, for narrow places: A, B, C ..."""
    return [chr(ord("A") + index) for index in range(count)]


def figure_words(name: str) -> str:
    """A figure's name in words."""
    return name.replace("_", " ").replace("top1", "top-1").replace("top5", "top-5").removeprefix("label ")


def make_contents(
    records: Sequence[RunRecord],
    *,
    groups: Mapping[str, Sequence[str]] | None = None,
    resampling: Resampling | None = None,
) -> Contents:
    """Compare the runs and make the charts.

    Args:
        records: at most `MOST_RUNS`, with different names; gains are of later runs over earlier ones.
        groups: label field -> the super-category of each class.
        resampling: of the confidence intervals.

    Raises:
        UserError: label maps, clips or true labels differ, the truth of a clip is unknown, two runs have one name, or
            there are too many.
    """
    names = [record.name for record in records]
    if len(set(names)) < len(names):
        raise UserError(f"two runs are called the same: {names}; give each another name with --names")
    if len(records) > MOST_RUNS:
        raise UserError(f"{len(records)} runs are given; one report compares at most {MOST_RUNS}")
    resampling = resampling or Resampling()
    assessed = compare({record.name: record.predictions for record in records}, resampling=resampling)
    first = records[0]
    runs = tuple(
        record
        if record is first
        else replace(record, predictions=in_order_of(first.name, first.predictions, record.name, record.predictions))
        for record in records
    )
    maker = _Maker(runs, tuple(assessed.values()), groups or {})
    sections = {
        "headline": maker.headline(),
        "learning": maker.learning(),
        "f1": maker.per_field(maker.f1),
        "confusion": maker.per_field(maker.confusion),
        "gains": maker.per_field(maker.gains),
        "groups": maker.per_field(maker.group_gains),
        "frequency": maker.per_field(maker.frequency),
        "entropy": maker.entropy(),
    }
    return Contents(
        runs=runs,
        assessed=maker.assessed,
        charts=maker.charts,
        sections={name: slots for name, slots in sections.items() if slots},
        level=resampling.level,
    )


class _Maker:
    """Collects charts by name while the sections are put together."""

    def __init__(
        self,
        runs: tuple[RunRecord, ...],
        assessed: tuple[Assessment, ...],
        groups: Mapping[str, Sequence[str]],
    ) -> None:
        self.runs, self.assessed, self.groups = runs, assessed, groups
        self.letters = letters(len(runs))
        self.names = runs[0].predictions.label_map.names
        self.charts: dict[str, Chart] = {}
        # The last over the first is what a comparison is usually about.
        pairs = list(combinations(range(len(runs)), 2))
        self.pairs = sorted(pairs, key=lambda pair: (-pair[1], pair[0]))

    def per_field(self, make: Callable[[str], list[Slot]]) -> list[Slot]:
        return [slot for field in self.names for slot in make(field)]

    def headline(self) -> list[Slot]:
        """Top-1 of every field, and the harmonic mean, with intervals."""
        figures = [name for name in self.assessed[0].figures if name.endswith("_top1") or name == HARMONIC_MEAN]
        if len(figures) * len(self.runs) == 1:
            return []
        series = [
            Bars(
                name=run.name,
                values=tuple(100 * one.figures[name].value for name in figures),
                colour=index,
                ends=tuple((100 * one.figures[name].low, 100 * one.figures[name].high) for name in figures),
            )
            for index, (run, one) in enumerate(zip(self.runs, self.assessed, strict=True))
        ]
        labels = tuple(figure_words(name).removesuffix(" top-1") for name in figures)
        chart = BarChart(
            title="Top-1 accuracy and harmonic mean" if HARMONIC_MEAN in figures else "Top-1 accuracy",
            value="%",
            labels=labels,
            series=tuple(series),
            horizontal=False,
        )
        return [self._slot(chart, "headline")]

    def learning(self) -> list[Slot]:
        histories = {run.name: run.history for run in self.runs}
        return [self._slot(chart, f"curve-{name}") for name, chart in learning_charts(histories).items()]

    def f1(self, field: str) -> list[Slot]:
        classes = {
            run.name: one.metrics.fields[field].per_class for run, one in zip(self.runs, self.assessed, strict=True)
        }
        return [self._slot(f1_chart(classes, self.names[field], title=f"F1 by {_class_of(field)}"), f"f1-{field}")]

    def confusion(self, field: str) -> list[Slot]:
        choices = {}
        for letter, run, one in zip(self.letters, self.runs, self.assessed, strict=True):
            confusion = one.metrics.fields[field].confusion
            name = f"confusion-{field}" if len(self.runs) == 1 else f"confusion-{field}-{letter}"
            title = _class_of(field).capitalize() if len(self.runs) == 1 else f"{run.name}: {_class_of(field)}"
            self.charts[name] = confusion_chart(confusion, self.names[field], title=title)
            choices[run.name] = name
        return [Slot(title=_class_of(field).capitalize(), choices=choices)]

    def gains(self, field: str) -> list[Slot]:
        """Named rows for every pair of runs, and all classes as columns if those are not all."""
        rows, columns = {}, {}
        for before, after in self.pairs:
            gains = class_gains(self._classes(field, before), self._classes(field, after), self.names[field])
            title, name = self._pair(before, after), self._pair_name(f"gain-{field}", before, after)
            mean = float(np.mean([gain.points for gain in gains]))
            titled = f"{title}: {mean:+.1f} points on average over {len(gains)} classes"
            self.charts[name] = extreme_gains_chart(gains, title=titled, colour=after)
            rows[title] = name
            if len(gains) > ROWS:
                name = self._pair_name(f"gain-{field}-all", before, after)
                self.charts[name] = gains_chart(gains, title=titled, colour=after, horizontal=False)
                columns[title] = name
        named = f"Gain by {_class_of(field)}"
        slots = [Slot(title=f"{named}: largest and smallest" if columns else named, choices=rows)] if rows else []
        return [*slots, Slot(title=f"{named}: all, sorted", choices=columns)] if columns else slots

    def group_gains(self, field: str) -> list[Slot]:
        if field not in self.groups:
            return []
        choices = {}
        for before, after in self.pairs:
            classes = self._classes(field, before), self._classes(field, after)
            gains = group_gains(*classes, groups=self.groups[field])
            overall = [100 * group_f1(one, ["all"] * len(one.f1))["all"] for one in classes]
            whole = Gain(name="overall", before=overall[0], after=overall[1], clips=int(classes[1].support.sum()))
            title, name = self._pair(before, after), self._pair_name(f"group-{field}", before, after)
            titled = f"{title}: {whole.points:+.1f} points overall"
            self.charts[name] = gains_chart([whole, *gains], title=titled, colour=after, horizontal=True)
            choices[title] = name
        return [Slot(title=f"Gain by super-category of {_class_of(field)}", choices=choices)] if choices else []

    def frequency(self, field: str) -> list[Slot]:
        """By the training clips of the first run that knows them: all are compared on the same classes."""
        counts = next((run.training_clips[field] for run in self.runs if field in run.training_clips), None)
        if counts is None:
            return []
        runs = {run.name: run.predictions for run in self.runs}
        title = f"Accuracy by training clips of the {_class_of(field)}"
        return [self._slot(frequency_chart(runs, field, counts, title=title), f"frequency-{field}")]

    def entropy(self) -> list[Slot]:
        slots = []
        for letter, run in zip(self.letters, self.runs, strict=True):
            points = {
                name: [(float(block), value) for block, value in enumerate(values, 1) if value is not None]
                for name, values in run.attention.entropy.items()
            }
            lines = [
                Line(name=name, points=of_exchange, colour=colour)
                for colour, (name, of_exchange) in enumerate(points.items())
                if of_exchange
            ]
            if lines:
                title = "Entropy of attention" if len(self.runs) == 1 else f"Entropy of attention: {run.name}"
                chart = LineChart(
                    title=title, x="block", y="share of the largest", lines=tuple(lines), y_format=".1%", fraction=True
                )
                slots.append(self._slot(chart, f"entropy-{letter}"))
        return slots

    def _classes(self, field: str, run: int) -> PerClass:
        return self.assessed[run].metrics.fields[field].per_class

    def _slot(self, chart: Chart, name: str) -> Slot:
        self.charts[name] = chart
        return Slot(title=chart.title, choices={chart.title: name})

    def _pair(self, before: int, after: int) -> str:
        return f"{self.runs[after].name} over {self.runs[before].name}"

    def _pair_name(self, kind: str, before: int, after: int) -> str:
        return f"{kind}-{self.letters[after]}-over-{self.letters[before]}"


def _class_of(field: str) -> str:
    return "class" if field == "label" else field
