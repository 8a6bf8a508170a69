"""A run goes on with the same data, labels and settings, and with no others."""

from __future__ import annotations

import dataclasses

import pytest

from cast_ray.config import RunConfig
from cast_ray.data.order import Position
from cast_ray.errors import UserError
from cast_ray.labels import LABEL, LabelMap
from cast_ray.recipes.toy import toy
from cast_ray.training.checkpoint import CheckpointState
from cast_ray.training.continuing import check_continues

LABELS = LabelMap({LABEL: ("up", "down")})
CONFIG = dataclasses.replace(toy(), name="run")
STATE = CheckpointState(
    position=Position(epoch=1),
    config=CONFIG.to_dict(),
    label_map=LABELS,
    dataset="abc",
    frozen="def",
    validation={},
)


def changed(group: str, **settings: object) -> RunConfig:
    return dataclasses.replace(CONFIG, **{group: dataclasses.replace(getattr(CONFIG, group), **settings)})


@pytest.mark.parametrize(
    "config",
    [
        CONFIG,
        dataclasses.replace(CONFIG, name="other", keep_checkpoints=7, checkpoint_every=3),
        changed("data", clips_per_task=3, decode_time_limit_s=5.0, tasks_per_decoder=2),
        changed("scale", zero_stage=1, max_failures=0),
    ],
    ids=["same", "where and how often", "how data is read", "how many"],
)
def test_what_does_not_change_the_result_may_change(config):
    check_continues(STATE, config, LABELS, "abc")


@pytest.mark.parametrize(
    ("config", "named"),
    [
        (changed("optim", epochs=99), f"--optim.epochs was {CONFIG.optim.epochs}, is 99"),
        (changed("data", decoder="pyav"), "--data.decoder was None, is pyav"),
        (dataclasses.replace(CONFIG, seed=5), "--seed was 0, is 5"),
    ],
)
def test_other_settings_are_refused_with_both_values(config, named):
    with pytest.raises(UserError, match="was started with other settings") as error:
        check_continues(STATE, config, LABELS, "abc")
    assert named in str(error.value)


def test_other_data_and_other_labels_are_refused():
    with pytest.raises(UserError, match="was started on dataset abc, this is xyz"):
        check_continues(STATE, CONFIG, LABELS, "xyz")
    with pytest.raises(UserError, match="was started with label map"):
        check_continues(STATE, CONFIG, LabelMap({LABEL: ("down", "up")}), "abc")
