"""What came out of the trials of a search, and which was the best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cast_ray.training.metrics import score
from cast_ray.watching.rows import Row

if TYPE_CHECKING:
    from cast_ray.tuning.lineage import Lineage, Stage

__all__ = ["EPOCH", "RUN", "SCORE", "VIEWS", "TrialResult", "ranked", "report_of", "result_of"]

EPOCH, SCORE, VIEWS, RUN = "epoch", "score", "views", "run"
"""What every report of a trial has, beside the validation's own figures: epochs done, the figure to maximise, whether
it is of the best checkpoint with all test views, and the name of the run."""


@dataclass(frozen=True, kw_only=True)
class TrialResult:
    """What came out of one trial."""

    name: str
    values: Mapping[str, Any]
    """Settings that the search chose, by dotted name."""
    reports: tuple[Mapping[str, Any], ...]
    """What it told Tune, in the order of epochs."""
    error: str | None
    """Why it failed."""
    schedule: Lineage = ()
    """In a population, the settings from the first epoch on that led to the best score; `values` are the last ones."""
    takeovers: tuple[Stage, ...] = ()
    """In a population, each time that the trial went on from another one's checkpoint."""

    @property
    def validations(self) -> tuple[Mapping[str, Any], ...]:
        """Its reports without that of all test views, which a trial that was ended early does not have."""
        return tuple(report for report in self.reports if not report.get(VIEWS))

    @property
    def epochs(self) -> int:
        """Epochs done when it last reported; 0 if it never has."""
        return self.reports[-1][EPOCH] if self.reports else 0

    @property
    def best_report(self) -> Mapping[str, Any]:
        """That of the best score in a validation; there is at least one."""
        return max(self.validations, key=lambda report: report[SCORE])

    @property
    def best(self) -> float | None:
        """Its best score in a validation; None if it has none."""
        return self.best_report[SCORE] if self.validations else None


def ranked(results: Sequence[TrialResult]) -> list[TrialResult]:
    """The best trial first; those without a figure last."""
    return sorted(results, key=lambda result: -1.0 if result.best is None else result.best, reverse=True)


def report_of(row: Row, *, run: str) -> dict[str, Any]:
    """What Tune is told of a validation of a run."""
    validation = row["validation"]
    return {EPOCH: row["epoch"], SCORE: score(validation), RUN: run, "step": row["step"], **validation}


def result_of(result: Any) -> TrialResult:
    """From what Tune keeps of a trial."""
    frame = result.metrics_dataframe
    rows: list[dict[str, Any]] = []
    if frame is not None and EPOCH in frame:
        # A trial that was continued tells some epochs twice; multi-view figures come after the last one.
        last = frame.assign(views=frame.get(VIEWS, False)).fillna({VIEWS: False})
        last = last.drop_duplicates([EPOCH, VIEWS], keep="last").sort_values([EPOCH, VIEWS])
        rows = last.to_dict("records")
    error = None if result.error is None else (str(result.error).strip().splitlines() or ["unknown"])[-1]
    return TrialResult(
        name=result.path.rpartition("/")[2], values=dict(result.config), reports=tuple(rows), error=error
    )
