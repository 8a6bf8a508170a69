"""How trials of a grid are summed up: over several seeds, a mean and its interval for every figure."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cast_ray.evaluation.metrics import harmonic_mean
from cast_ray.training.metrics import top1_by_field
from cast_ray.tuning.results import VIEWS, TrialResult

__all__ = ["Mean", "figures_of", "harmonic", "mean_of", "means", "table_line"]


@dataclass(frozen=True, kw_only=True)
class Mean:
    """One figure of several runs that differ in their seed only."""

    value: float
    """The mean, from 0 to 1."""
    half_width: float | None
    """Of the interval in which the mean of many such runs would be, with a probability of 95 % (Student's t); None for
    a single run."""
    runs: int

    @property
    def ends(self) -> tuple[float, float]:
        """Of the interval, in percent, from 0 to 100 as all shares are; twice the mean without one."""
        half = self.half_width or 0.0
        return max(100 * (self.value - half), 0.0), min(100 * (self.value + half), 100.0)

    def __str__(self) -> str:
        """In percent: `72.5` or `72.5 +- 0.8`."""
        spread = "" if self.half_width is None else f" +- {100 * self.half_width:.1f}"
        return f"{100 * self.value:.1f}{spread}"


def figures_of(result: TrialResult) -> dict[str, float]:
    """Top-1 by label field: of the best checkpoint with all test views, or else at the best epoch's validation."""
    if not result.reports:
        return {}
    viewed = [report for report in result.reports if report.get(VIEWS)]
    chosen = viewed[-1] if viewed else result.best_report
    return {field: float(value) for field, value in top1_by_field(chosen).items()}


def mean_of(values: Sequence[float]) -> Mean:
    """Mean and interval of at least one value."""
    if len(values) == 1:
        return Mean(value=values[0], half_width=None, runs=1)
    from scipy.stats import t

    error = statistics.stdev(values) / len(values) ** 0.5
    half = float(t.ppf(0.975, len(values) - 1)) * error
    return Mean(value=statistics.mean(values), half_width=half, runs=len(values))


def means(results: Sequence[TrialResult], group: Callable[[TrialResult], str]) -> dict[str, dict[str, Mean]]:
    """Group -> figure -> mean over the group's trials that have figures; groups in the order of their first trial."""
    collected: dict[str, dict[str, list[float]]] = {}
    for result in results:
        for name, value in figures_of(result).items():
            collected.setdefault(group(result), {}).setdefault(name, []).append(value)
    return {key: {name: mean_of(values) for name, values in named.items()} for key, named in collected.items()}


def harmonic(of_datasets: dict[str, dict[str, float]]) -> float:
    """Harmonic mean over all label fields of all datasets, the papers' measure of balance; an action does not count
    beside its verb and noun."""
    return harmonic_mean(
        *(value for named in of_datasets.values() for name, value in named.items() if name != "action")
    )


def table_line(cells: Sequence[str]) -> str:
    """A line of a Markdown table."""
    return f"| {' | '.join(cells)} |"
