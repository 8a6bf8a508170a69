"""How figures of runs look on a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich import box
from rich.table import Table

from cast_ray.evaluation.bootstrap import Interval
from cast_ray.evaluation.class_frequency import FrequencyBin
from cast_ray.evaluation.comparison import HARMONIC_MEAN, Assessment

__all__ = ["figures_table", "frequency_table"]

CALIBRATION = "calibration error"


def figures_table(
    assessed: Mapping[str, Assessment], *, side_by_side: bool = True, overall: Interval | None = None
) -> Table:
    """A row for each figure and a column for each run, by its number from 1.

    Args:
        assessed: runs by name.
        side_by_side: with the differences from the first run.
        overall: the harmonic mean over datasets, if the runs are on different ones.
    """
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("")
    for number, one in enumerate(assessed.values(), start=1):
        table.add_column(str(number), justify="right")
        if side_by_side and one.differences:
            table.add_column(f"{number} - 1", justify="right")
    for name in dict.fromkeys(name for one in assessed.values() for name in one.figures):
        cells = []
        for one in assessed.values():
            cells.append(_cell(one.figures.get(name)))
            if side_by_side and one.differences:
                cells.append(_difference(one.differences[name]))
        table.add_row(_words(name), *cells)
    for field in dict.fromkeys(field for one in assessed.values() for field in one.metrics.fields):
        cells = []
        for one in assessed.values():
            metrics = one.metrics.fields.get(field)
            cells.append("" if metrics is None else f"{100 * metrics.calibration_error:.1f}")
            cells += [""] * bool(side_by_side and one.differences)
        table.add_row(f"{field} {CALIBRATION}", *cells)
    if overall is not None:
        table.add_row("harmonic mean over all", _cell(overall), *[""] * (len(assessed) - 1))
    return table


def frequency_table(field: str, bins: Mapping[str, Sequence[FrequencyBin]]) -> Table:
    """Accuracy by number of training clips: a row for each bin, a column for each run, by its number from 1."""
    table = Table(box=box.SIMPLE_HEAD)
    for title in (f"training clips of the {field}", "classes", "clips", *map(str, range(1, len(bins) + 1))):
        table.add_column(title, justify="right")
    for row in zip(*bins.values(), strict=True):
        first = row[0]
        span = f"{first.low} to {first.high}" if first.high is not None else f"{first.low} or more"
        span = str(first.low) if first.low == first.high else span
        table.add_row(span, str(first.classes), str(first.clips), *(f"{100 * one.accuracy:.1f}" for one in row))
    return table


def _words(name: str) -> str:
    words = name.replace("_", " ").replace("top", "top-")
    return f"{words} (top-1)" if name == HARMONIC_MEAN else words


def _cell(one: Interval | None) -> str:
    if one is None:
        return ""
    if one.value != one.value:
        return "no clips"
    return f"{100 * one.value:.1f} [dim]{100 * one.low:.1f} to {100 * one.high:.1f}[/]"


def _difference(one: Interval) -> str:
    if one.value != one.value:
        return ""
    mark = "*" if one.excludes_zero else " "
    return f"{100 * one.value:+.1f} [dim]{100 * one.low:+.1f} to {100 * one.high:+.1f}[/] {mark}"
