"""The configuration of one trial."""

from __future__ import annotations

import pytest

from cast_ray.recipes.ek100 import ek100
from cast_ray.recipes.small import small
from cast_ray.tuning.trial import DATASET, VARIANT, Trial, trial_config


@pytest.fixture(scope="module")
def trial() -> Trial:
    return Trial(
        base=small(ek100()),
        datasets={"one": "/one", "two": "/two"},
        variants={"plain": {}, "one way": {"model.name": "cast_tiny_to_spatial_only", "optim.base_lr": 0.25}},
    )


def test_drawn_values_become_settings_and_the_run_has_the_name_of_the_trial(trial):
    config = trial_config(trial, {"optim.base_lr": 0.5, "seed": 7}, "a1_00003")
    assert (config.optim.base_lr, config.seed, config.name) == (0.5, 7, "a1_00003")


def test_which_dataset_is_no_setting(trial):
    assert trial_config(trial, {DATASET: "two"}, "a") == trial_config(trial, {}, "a")


def test_a_variant_brings_several_settings_and_wins_over_single_ones(trial):
    config = trial_config(trial, {VARIANT: "one way", "optim.base_lr": 0.5}, "a")
    assert (config.model.name, config.optim.base_lr) == ("cast_tiny_to_spatial_only", 0.25)
    assert trial_config(trial, {VARIANT: "plain"}, "a") == trial_config(trial, {}, "a")
