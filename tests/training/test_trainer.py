"""How failures of workers reach the user."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest
import ray
from ray.train import WorkerGroupError
from ray.train.v2._internal.exceptions import UserExceptionWithTraceback

from cast_ray.errors import UserError
from cast_ray.recipes.ssv2 import ssv2
from cast_ray.training.trainer import _fit


def fit_failing_with(error: Exception) -> None:
    def fit() -> None:
        raise WorkerGroupError("worker 1 failed", {1: UserExceptionWithTraceback(error, "long trace")})

    _fit(SimpleNamespace(fit=fit), dataclasses.replace(ssv2(), name="x"))


def test_a_users_mistake_found_in_a_decode_task_is_shown_as_such_and_without_a_trace():
    mistake = UserError("cannot read s3://bucket/shard after 6 attempts; see that the storage can be reached")
    behind = ray.exceptions.RayTaskError("decode", "trace", mistake)
    with pytest.raises(UserError) as raised:
        fit_failing_with(behind.as_instanceof_cause())
    assert str(raised.value) == str(mistake)
    assert raised.value.__suppress_context__


def test_a_defect_of_ours_keeps_its_trace():
    with pytest.raises(WorkerGroupError, match="worker 1 failed"):
        fit_failing_with(ZeroDivisionError("division by zero"))
