"""Gains are differences of F1, also of super-categories, and sorted."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score

from cast_ray.evaluation.metrics import evaluate
from cast_ray.report.gains import (
    ROWS,
    class_gains,
    extreme_gains_chart,
    f1_chart,
    frequency_chart,
    group_f1,
    group_gains,
)

NAMES = {"label": tuple(f"class {index}" for index in range(50))}


@pytest.fixture(scope="module")
def pair(make_runs):
    return make_runs(NAMES, clips=300, skills=(1.0, 2.0))


def classes_of(run):
    return evaluate(run).fields["label"].per_class


def test_class_gains_are_differences_of_f1_as_scikit_learn_has_it(pair):
    before, after = (
        f1_score(run.true("label"), run.predicted("label"), average=None, labels=range(50), zero_division=0)
        for run in pair
    )
    gains = class_gains(*map(classes_of, pair), NAMES["label"])
    clips = np.bincount(pair[0].true("label"), minlength=50)
    expected = {name: 100 * (after - before)[index] for index, name in enumerate(NAMES["label"]) if clips[index]}
    assert {gain.name: gain.points for gain in gains} == pytest.approx(expected)
    points = [gain.points for gain in gains]
    assert points == sorted(points, reverse=True)


def test_the_weighted_f1_of_one_group_is_scikit_learns_weighted_average(pair):
    run = pair[0]
    expected = f1_score(run.true("label"), run.predicted("label"), average="weighted", zero_division=0)
    assert group_f1(classes_of(run), ["all"] * 50)["all"] == pytest.approx(expected)


def test_group_gains_weigh_classes_by_their_clips(pair):
    groups = ["even" if index % 2 == 0 else "odd" for index in range(50)]
    before, after = map(classes_of, pair)
    for gain in group_gains(before, after, groups):
        inside = np.array(groups) == gain.name
        weights = after.support[inside]
        assert gain.after == pytest.approx(100 * np.average(after.f1[inside], weights=weights))
        assert gain.before == pytest.approx(100 * np.average(before.f1[inside], weights=weights))
        assert gain.clips == weights.sum()


def test_of_many_classes_the_largest_and_smallest_gains_have_names(pair):
    gains = class_gains(*map(classes_of, pair), NAMES["label"])
    chart = extreme_gains_chart(gains, title="t", colour=1)
    assert len(chart.labels) == ROWS
    assert chart.labels[0] == gains[0].name
    assert chart.labels[-1] == gains[-1].name


def test_f1_is_sorted_by_the_last_run(pair):
    chart = f1_chart({"a": classes_of(pair[0]), "b": classes_of(pair[1])}, NAMES["label"], title="t")
    assert list(chart.series[1].values) == sorted(chart.series[1].values, reverse=True)
    assert len(chart.labels) == (classes_of(pair[0]).support > 0).sum()


def test_accuracy_by_training_clips_has_a_bar_for_each_run_and_bin(pair):
    counts = np.array([5] * 25 + [50] * 25)
    chart = frequency_chart(dict(zip("ab", pair, strict=True)), "label", counts, title="t")
    assert chart.labels == ("1 to 9", "30 to 99")
    rare = pair[0].true("label") < 25
    assert chart.series[0].values[0] == pytest.approx(100 * pair[0].right()[rare].mean())
