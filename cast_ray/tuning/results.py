"""What came out of the trials of a search, and which was the best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["EPOCH", "SCORE", "VIEWS", "TrialResult", "ranked", "result_of"]

EPOCH, SCORE, VIEWS = "epoch", "score", "views"
"""What every report of a trial has, beside the validation's own figures: epochs done, the figure to maximise, and
whether it is of the best checkpoint with all test views."""


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

    @property
    def best(self) -> float | None:
        """Its best score in a validation; None if it has none.

        Not that with all test views, which a trial that was ended early does not have.
        """
        return max((report[SCORE] for report in self.reports if not report.get(VIEWS)), default=None)


def ranked(results: Sequence[TrialResult]) -> list[TrialResult]:
    """The best trial first; those without a figure last."""
    return sorted(results, key=lambda result: -1.0 if result.best is None else result.best, reverse=True)


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
