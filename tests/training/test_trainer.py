"""How failures of workers reach the user."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest
import ray
from ray.train import ControllerError, WorkerGroupError
from ray.train.v2._internal.exceptions import (
    UserExceptionWithTraceback,
    WorkerGroupStartupTimeoutError,
    WorkerHealthCheckFailedError,
)

from cast_ray.errors import UserError
from cast_ray.recipes.ssv2 import ssv2
from cast_ray.settings.scale import ScaleConfig
from cast_ray.training.trainer import _fit, _start_attempts


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


def test_elastic_workers_are_asked_for_again_with_another_number_when_a_machine_has_gone_meanwhile():
    """Ray chooses how many from what it knew 20 seconds ago; a single attempt would wait for places that never come."""
    scale = ScaleConfig(start_timeout_s=900, max_failures=3)
    assert _start_attempts(scale) == (900, 1)
    assert _start_attempts(dataclasses.replace(scale, min_workers=8)) == (30, 33)
    assert _start_attempts(dataclasses.replace(scale, min_workers=8, start_timeout_s=10)) == (10, 4)


def test_workers_that_do_not_come_are_named_with_the_number_without_which_the_run_cannot_start():
    def fit() -> None:
        raise ControllerError(WorkerGroupStartupTimeoutError(num_workers=16))

    config = ssv2()
    elastic = dataclasses.replace(config, scale=dataclasses.replace(config.scale, min_workers=8))
    for one, workers in ((config, 16), (elastic, 8)):
        with pytest.raises(UserError, match=f"did not provide {workers} workers within 900 s"):
            _fit(SimpleNamespace(fit=fit), one)


def test_a_run_that_loses_workers_too_often_says_how_it_goes_on():
    def fit() -> None:
        gone = ray.exceptions.ActorUnavailableError("its node has died", None)
        survivor = UserExceptionWithTraceback(RuntimeError("connection closed by peer"), "long trace")
        raise WorkerGroupError("two failed", {0: survivor, 1: WorkerHealthCheckFailedError("worker 1", gone)})

    with pytest.raises(UserError, match=r"max-failures 3 allows; .* worker 1: .*same command with --name x to go on"):
        _fit(SimpleNamespace(fit=fit), dataclasses.replace(ssv2(), name="x"))
