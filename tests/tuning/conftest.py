"""Trials that never ran."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from cast_ray.tuning.results import TrialResult


@pytest.fixture(scope="session")
def make_result() -> Callable[..., TrialResult]:
    """A trial with its scores after each epoch; figures of a label field `action` beside them."""

    def make(name: str, values: Mapping[str, Any], *scores: float, error: str | None = None) -> TrialResult:
        reports = [{"epoch": epoch, "score": score, "action_top1": score} for epoch, score in enumerate(scores, 1)]
        return TrialResult(name=name, values=values, reports=tuple(reports), error=error)

    return make
