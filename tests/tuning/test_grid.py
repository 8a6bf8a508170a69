"""Means over seeds and the harmonic mean over datasets."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from cast_ray.tuning.grid import Mean, figures_of, harmonic, mean_of, means


@given(st.lists(st.floats(0, 1), min_size=2, max_size=8).filter(lambda values: np.std(values) > 1e-6))
def test_the_interval_is_scipys(values):
    mean = mean_of(values)
    low, high = stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=stats.sem(values))
    assert (mean.value - mean.half_width, mean.value + mean.half_width) == pytest.approx((low, high))
    assert mean.runs == len(values)


def test_a_single_run_has_no_interval():
    assert mean_of([0.5]) == Mean(value=0.5, half_width=None, runs=1)
    assert str(mean_of([0.5])) == "50.0"
    assert str(Mean(value=0.725, half_width=0.008, runs=3)) == "72.5 +- 0.8"


def test_the_ends_of_an_interval_are_shares():
    assert Mean(value=0.725, half_width=0.008, runs=3).ends == pytest.approx((71.7, 73.3))
    assert Mean(value=0.25, half_width=0.9, runs=2).ends == (0.0, 100.0)
    assert Mean(value=0.25, half_width=None, runs=1).ends == (25.0, 25.0)


def test_figures_are_those_of_the_best_epoch(make_result):
    assert figures_of(make_result("a", {}, 0.1, 0.4, 0.3)) == {"action": 0.4}


def test_figures_with_all_views_come_before_those_of_training(make_result):
    trained = make_result("a", {}, 0.1, 0.4)
    viewed = {"epoch": 2, "score": 0.2, "views": True, "verb_top1": 0.35, "verb_top5": 0.9}
    assert figures_of(dataclasses.replace(trained, reports=(*trained.reports, viewed))) == {"verb": 0.35}


def test_a_trial_without_a_report_has_no_figures(make_result):
    assert figures_of(make_result("a", {}, error="lost")) == {}


def test_trials_are_grouped_in_the_order_of_their_first_one(make_result):
    results = [make_result(name, {"seed": seed}, value) for name, seed, value in (("b", 0, 0.2), ("a", 0, 0.5))]
    results += [make_result("b", {"seed": 1}, 0.4), make_result("c", {"seed": 0}, error="lost")]
    found = means(results, lambda result: result.name)
    assert list(found) == ["b", "a"]
    assert found["b"]["action"].value == pytest.approx(0.3)
    assert (found["b"]["action"].runs, found["a"]["action"].runs) == (2, 1)


def test_the_harmonic_mean_is_over_all_fields_of_all_datasets_but_the_action():
    of = {"ek100": {"verb": 0.5, "noun": 0.25, "action": 0.01}, "k400": {"label": 0.8}}
    assert harmonic(of) == pytest.approx(stats.hmean([0.5, 0.25, 0.8]))
