"""The learning-rate schedule: its shape, its ends, and the golden run."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cast_ray.config import OptimConfig
from cast_ray.training.schedule import dropping_rates, learning_rates, rates_of_run

GOLDEN = Path(__file__).parents[1] / "golden" / "cast_tiny_single.json"


def test_schedule_equals_the_golden_run():
    golden = json.loads(GOLDEN.read_text())["finetune"]
    rates = learning_rates(steps=6, warmup_steps=3, peak=golden["peak_lr"], final=golden["min_lr"])
    np.testing.assert_allclose(rates, golden["lr_per_step"], rtol=1e-12)


@given(steps=st.integers(2, 200), share=st.floats(0, 1), final=st.floats(0, 0.5))
def test_schedule_rises_to_the_peak_then_falls_towards_the_end(steps, share, final):
    warmup = int(steps * share)
    rates = learning_rates(steps=steps, warmup_steps=warmup, peak=1.0, final=final)
    assert len(rates) == steps
    assert (np.diff(rates[:warmup]) > 0).all()
    assert (np.diff(rates[warmup:]) < 0).all()
    assert rates.max() <= 1.0
    assert rates[warmup:].min(initial=1.0) >= final
    if warmup:
        assert rates[0] == 0
    for index in range(warmup, steps):
        progress = (index - warmup) / (steps - warmup)
        assert rates[index] == pytest.approx(final + (1 - final) * (1 + math.cos(math.pi * progress)) / 2)


@pytest.mark.parametrize("warmup_steps", [-1, 11])
def test_warmup_outside_the_run_is_refused(warmup_steps):
    with pytest.raises(ValueError, match="the run has 10 steps"):
        learning_rates(steps=10, warmup_steps=warmup_steps, peak=1.0, final=0.0)


@given(
    steps=st.integers(1, 100),
    share=st.floats(0, 1),
    drops=st.lists(st.integers(1, 120), unique=True).map(sorted),
    factor=st.floats(0.01, 0.9),
)
def test_dropping_rates_are_the_peak_times_one_factor_per_drop_that_is_past(steps, share, drops, factor):
    warmup = int(steps * share)
    rates = dropping_rates(steps=steps, warmup_steps=warmup, peak=0.5, drops=drops, factor=factor)
    assert len(rates) == steps
    for step in range(steps):
        level = 0.5
        for drop in drops:
            if step >= drop:
                level *= factor
        if step < warmup:
            level = min(level, 0.5 * step / max(warmup - 1, 1))
        assert rates[step] == pytest.approx(level)


def test_a_run_without_steps_has_a_cosine_and_one_with_steps_none():
    optim = OptimConfig(epochs=4, warmup_epochs=0.5, base_lr=2e-3, min_lr=1e-5)
    cosine = rates_of_run(optim, global_batch=128, steps_per_epoch=10)
    np.testing.assert_array_equal(cosine, learning_rates(steps=40, warmup_steps=5, peak=1e-3, final=0.5e-5))
    optim = OptimConfig(
        epochs=4, warmup_epochs=0.5, base_lr=2e-3, schedule="steps", drop_epochs=(2, 3), drop_factor=0.5
    )
    steps = rates_of_run(optim, global_batch=128, steps_per_epoch=10)
    assert steps[:5].tolist() == pytest.approx([0, 0.25e-3, 0.5e-3, 0.75e-3, 1e-3])
    assert steps[5:].tolist() == pytest.approx([1e-3] * 15 + [0.5e-3] * 10 + [0.25e-3] * 10)
