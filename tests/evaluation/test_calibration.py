"""Calibration against scikit-learn's curve and cases by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.calibration import calibration_curve

from cast_ray.evaluation.calibration import calibration_error, reliability


@pytest.mark.parametrize("bins", [5, 15])
def test_the_bins_are_those_of_scikit_learn(make_predictions, bins):
    predictions = make_predictions({"label": tuple("abcdefg")}, clips=3000, skill=3)
    true, probabilities = predictions.true("label"), predictions.probabilities["label"]
    ours = reliability(true, probabilities, bins=bins)
    theirs = calibration_curve(
        probabilities.argmax(axis=1) == true, probabilities.max(axis=1), n_bins=bins, strategy="uniform"
    )
    filled = ours.count > 0
    np.testing.assert_allclose(ours.accuracy[filled], theirs[0])
    np.testing.assert_allclose(ours.confidence[filled], theirs[1], rtol=1e-6)
    assert ours.count.sum() == 3000
    assert np.isnan(ours.accuracy[~filled]).all()


def test_a_case_by_hand():
    # Confidences 0.9 (right), 0.8 (wrong), 0.5 (right, at an edge, of the lower bin), in bins of 0.5.
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]], np.float32)
    data = reliability(np.array([0, 0, 0]), probabilities, bins=2)
    assert data.count.tolist() == [1, 2]
    assert data.accuracy.tolist() == [1, 0.5]
    assert data.confidence == pytest.approx([0.5, 0.85])
    assert calibration_error(data) == pytest.approx(1 / 3 * 0.5 + 2 / 3 * 0.35)


def test_a_model_whose_probabilities_come_true_has_no_error():
    probabilities = np.tile(np.array([0.75, 0.25], np.float32), (400, 1))
    true = (np.arange(400) % 4 == 0).astype(int)
    assert calibration_error(reliability(true, probabilities)) == pytest.approx(0, abs=1e-6)
    certain = np.tile(np.array([1.0, 0.0], np.float32), (400, 1))
    assert calibration_error(reliability(true, certain)) == pytest.approx(0.25)
