"""Which settings mattered."""

from __future__ import annotations

import numpy as np
import pytest

from cast_ray.tuning.importance import importance

FIELDS = ("optim.base_lr", "augment.rand_augment", "optim.epochs", "optim.betas", "seed")


def some(make_result, count):
    """Trials whose score is the logarithm of the learning rate, and of nothing else."""
    random = np.random.default_rng(0)
    trials = []
    for number in range(count):
        power = random.uniform(-4, -2)
        values = {
            "optim.base_lr": 10**power,
            "augment.rand_augment": (None, "rand-m7")[random.integers(2)],
            "optim.epochs": int(random.integers(3, 9)),
            "optim.betas": ([0.9, 0.98], [0.9, 0.999])[random.integers(2)],
            "seed": 3,
        }
        trials.append(make_result(str(number), values, (power + 4) / 2))
    return trials


def test_the_setting_that_makes_the_score_gets_nearly_all_of_the_importance(make_result):
    shares = importance(some(make_result, 40), FIELDS)
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["optim.base_lr"] > 0.9
    assert set(shares) == set(FIELDS) - {"seed"}, "a setting that never varied has none"


def test_nothing_is_said_about_few_trials_or_settings_that_never_varied(make_result):
    trials = some(make_result, 8)
    assert importance(trials[:7], FIELDS) == {}
    assert importance(trials, ("seed",)) == {}
    assert importance(trials, FIELDS) != {}
