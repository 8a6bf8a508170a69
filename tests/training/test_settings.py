"""Settings that keep a run alive: what is refused, and what may change when a run goes on."""

from __future__ import annotations

import dataclasses

import pytest

from cast_ray.config import OptimConfig, RunConfig, ScaleConfig
from cast_ray.data.order import Position
from cast_ray.errors import UserError
from cast_ray.labels import LABEL, LabelMap
from cast_ray.recipes.ssv2 import ssv2
from cast_ray.training.checkpoint import CheckpointState
from cast_ray.training.continuing import check_continues

LABELS = LabelMap({LABEL: ("a", "b")})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RunConfig(checkpoint_every=0), "checkpoint-every is 0"),
        (lambda: RunConfig(checkpoint_retry_s=0), "checkpoint-retry-s is 0"),
        (lambda: ScaleConfig(hang_timeout_s=-1), "hang-timeout-s is -1"),
        (lambda: ScaleConfig(zero_stage=0, precision="fp16"), "zero-stage 0 does not go with scale.precision fp16"),
        (
            lambda: ScaleConfig(zero_stage=0, precision="float32", offload_optimizer=True),
            "offload-optimizer does not go with scale.zero-stage 0",
        ),
        (lambda: OptimConfig(ema_decay=1.0), "ema-decay is 1.0"),
    ],
)
def test_what_cannot_work_is_refused_with_its_value(make, message):
    with pytest.raises(UserError, match=message):
        make()


def continues(changed: RunConfig) -> None:
    state = CheckpointState(
        position=Position(), config=ssv2().to_dict(), label_map=LABELS, dataset="d", frozen="f", validation={}
    )
    check_continues(state, changed, LABELS, "d")


def test_how_checkpoints_are_written_and_bad_losses_are_met_may_change_within_a_run():
    config = ssv2()
    continues(
        dataclasses.replace(
            config,
            checkpoint_every=7,
            checkpoint_retry_s=1.0,
            optim=dataclasses.replace(config.optim, on_bad_loss="skip"),
            scale=dataclasses.replace(config.scale, hang_timeout_s=5.0, zero_stage=3),
        )
    )


def test_a_moving_average_cannot_begin_within_a_run():
    config = ssv2()
    with pytest.raises(UserError, match=r"--optim\.ema-decay was 0\.0, is 0\.9"):
        continues(dataclasses.replace(config, optim=dataclasses.replace(config.optim, ema_decay=0.9)))
