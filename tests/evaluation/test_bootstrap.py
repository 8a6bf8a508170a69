"""Confidence intervals against SciPy's bootstrap, theory, and what they promise: coverage."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from cast_ray.evaluation.bootstrap import harmonic_replicates, interval, replicates
from cast_ray.evaluation.figures import Figure

CLIPS = 400


@pytest.fixture(scope="module")
def figures():
    """Two runs on the same clips, the second better where the first is good too."""
    random = np.random.default_rng(3)
    classes = random.integers(0, 12, CLIPS)
    first = random.random(CLIPS) < 0.3 + classes / 20
    second = first ^ (random.random(CLIPS) < 0.15)
    return {
        "first": Figure(right=first),
        "second": Figure(right=second),
        "mean of classes": Figure(right=first, classes=classes),
        "subset": Figure(right=first, counted=classes > 8),
        "mean of classes of a subset": Figure(right=first, classes=classes, counted=classes > 8),
    }


def _mean_class(right, classes):
    return np.mean([right[classes == one].mean() for one in np.unique(classes)])


@pytest.mark.parametrize(
    ("name", "statistic"),
    [
        ("first", lambda right, classes: right.mean()),
        ("mean of classes", _mean_class),
        ("subset", lambda right, classes: right[classes > 8].mean()),
        ("mean of classes of a subset", lambda right, classes: _mean_class(right[classes > 8], classes[classes > 8])),
    ],
)
def test_intervals_are_those_of_scipy(figures, name, statistic):
    classes = figures["mean of classes"].classes
    theirs = stats.bootstrap(
        (figures["first"].right, classes),
        statistic,
        paired=True,
        vectorized=False,
        n_resamples=3000,
        method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval
    resampled = replicates(figures, resamples=3000, seed=0)[name]
    ours = interval(figures[name].value, resampled, level=0.95)
    # The ends of both are estimates from 3000 resamples: a few per cent of the width.
    width = theirs.high - theirs.low
    assert ours.low == pytest.approx(theirs.low, abs=0.08 * width)
    assert ours.high == pytest.approx(theirs.high, abs=0.08 * width)
    assert ours.value == pytest.approx(statistic(figures["first"].right, classes))


def test_differences_are_paired(figures):
    drawn = replicates(figures, resamples=4000, seed=0)
    paired = drawn["second"] - drawn["first"]
    gain = figures["second"].right.astype(float) - figures["first"].right
    assert paired.std() == pytest.approx(gain.std() / np.sqrt(CLIPS), rel=0.05)
    # Two runs on different clips would differ by chance much more.
    assert paired.std() < 0.7 * np.hypot(drawn["first"].std(), drawn["second"].std())


def test_an_accuracy_in_resamples_is_binomial(figures):
    right = figures["first"].right
    drawn = replicates({"a": figures["first"]}, resamples=20_000, seed=0)["a"] * CLIPS
    np.testing.assert_allclose(drawn, drawn.round(), atol=1e-9)
    expected = stats.binom(CLIPS, right.mean())
    assert drawn.mean() == pytest.approx(expected.mean(), abs=4 * expected.std() / np.sqrt(20_000))
    assert drawn.std() == pytest.approx(expected.std(), rel=0.03)


def test_the_interval_holds_the_truth_as_often_as_it_says():
    random, inside = np.random.default_rng(0), 0
    for trial in range(400):
        figure = Figure(right=random.random(300) < 0.7)
        one = interval(figure.value, replicates({"a": figure}, resamples=400, seed=trial)["a"], level=0.9)
        inside += one.low <= 0.7 <= one.high
    assert 0.85 <= inside / 400 <= 0.95


@settings(max_examples=25, deadline=None)
@given(clips=st.integers(1, 80), seed=st.integers(0, 1000))
def test_the_order_of_clips_changes_nothing_and_nothing_leaves_its_bounds(clips, seed):
    random = np.random.default_rng(seed)
    right, counted, classes = random.random(clips) < 0.5, random.random(clips) < 0.5, random.integers(0, 9, clips)
    order = random.permutation(clips)

    def all_kinds(rows):
        return {
            "plain": Figure(right=right[rows]),
            "some": Figure(right=right[rows], counted=counted[rows]),
            "classes": Figure(right=right[rows], classes=classes[rows]),
        }

    here = replicates(all_kinds(np.arange(clips)), resamples=50, seed=seed)
    there = replicates(all_kinds(order), resamples=50, seed=seed)
    for name, values in here.items():
        np.testing.assert_allclose(there[name], values, rtol=1e-12)
        finite = values[np.isfinite(values)]
        assert ((finite >= 0) & (finite <= 1 + 1e-12)).all()


def test_the_seed_decides_and_chunks_do_not(figures, monkeypatch):
    first = replicates(figures, resamples=64, seed=7)
    assert not np.array_equal(first["first"], replicates(figures, resamples=64, seed=8)["first"])
    monkeypatch.setattr("cast_ray.evaluation.bootstrap.CELLS_AT_ONCE", 100)
    for name, values in replicates(figures, resamples=64, seed=7).items():
        np.testing.assert_allclose(values, first[name], rtol=1e-12)


def test_where_no_clip_counts_there_is_no_number():
    figure = Figure(right=np.array([True, False]), counted=np.array([False, False]))
    one = interval(figure.value, replicates({"a": figure}, resamples=20, seed=0)["a"], level=0.95)
    assert np.isnan([one.value, one.low, one.high]).all()
    assert not one.excludes_zero


def test_the_harmonic_mean_of_resamples():
    assert harmonic_replicates([np.array([0.5, 0.0, 1.0]), np.array([0.25, 0.5, 1.0])]) == pytest.approx([1 / 3, 0, 1])
