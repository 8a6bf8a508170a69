"""The learning-rate schedule: its shape, its ends, and the golden run."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cast_ray.training.schedule import learning_rates

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
