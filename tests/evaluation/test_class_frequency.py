"""Accuracy by number of training clips."""

from __future__ import annotations

import numpy as np
import pytest

from cast_ray.errors import UserError
from cast_ray.evaluation.class_frequency import accuracy_by_training_clips, training_clips


@pytest.fixture
def predictions(make_predictions):
    return make_predictions({"label": tuple("abcde")}, clips=200)


def test_bins_hold_the_classes_of_their_range(predictions):
    counts = np.array([0, 5, 9, 10, 5000])
    bins = accuracy_by_training_clips(predictions, "label", counts, edges=(0, 1, 10, 100))
    assert [(one.low, one.high, one.classes) for one in bins] == [(0, 0, 1), (1, 9, 2), (10, 99, 1), (100, None, 1)]
    right, true = predictions.right("label"), predictions.true("label")
    assert [one.clips for one in bins] == [
        (true == 0).sum(),
        np.isin(true, (1, 2)).sum(),
        (true == 3).sum(),
        (true == 4).sum(),
    ]
    assert bins[1].accuracy == pytest.approx(right[np.isin(true, (1, 2))].mean())
    assert bins[1].mean_class_accuracy == pytest.approx((right[true == 1].mean() + right[true == 2].mean()) / 2)
    assert sum(one.accuracy * one.clips for one in bins) == pytest.approx(right.sum())


def test_bins_without_test_clips_are_left_out(predictions):
    bins = accuracy_by_training_clips(predictions, "label", np.full(5, 40))
    assert [(one.low, one.high, one.clips) for one in bins] == [(30, 99, 200)]


def test_training_clips_are_counted_for_classes_without_any_too():
    assert training_clips(np.array([1, 1, 3]), 5).tolist() == [0, 2, 0, 1, 0]


def test_counts_of_other_classes_are_refused(predictions):
    with pytest.raises(UserError, match="given for 4 label classes, the model has 5"):
        accuracy_by_training_clips(predictions, "label", np.ones(4, int))
