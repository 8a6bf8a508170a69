from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from cast_ray.evaluation.metrics import evaluate, top_k_accuracy
from cast_ray.evaluation.predictions import Predictions
from cast_ray.labels import LabelMap


def test_everything_agrees_with_scikit_learn(make_predictions):
    names = {"verb": tuple(f"v{index}" for index in range(12)), "noun": tuple(f"n{index}" for index in range(7))}
    predictions = make_predictions(names, clips=400)
    metrics = evaluate(predictions)
    right = []
    for column, (field, size) in enumerate(predictions.label_map.num_classes.items()):
        true, probabilities = predictions.labels[:, column], predictions.probabilities[field]
        predicted = probabilities.argmax(axis=1)
        right.append(predicted == true)
        ours, classes = metrics.fields[field], np.arange(size)
        assert ours.top1 == pytest.approx(sklearn_metrics.accuracy_score(true, predicted))
        assert ours.top5 == pytest.approx(
            sklearn_metrics.top_k_accuracy_score(true, probabilities, k=5, labels=classes)
        )
        assert ours.mean_class_accuracy == pytest.approx(sklearn_metrics.balanced_accuracy_score(true, predicted))
        np.testing.assert_array_equal(ours.confusion, sklearn_metrics.confusion_matrix(true, predicted, labels=classes))
    assert metrics.num_clips == 400
    assert metrics.action_top1 == pytest.approx(np.mean(right[0] & right[1]))


def test_a_case_computed_by_hand():
    predictions = Predictions(
        clip_ids=("a", "b", "c", "d"),
        labels=np.array([[0, 0], [0, 1], [0, 1], [1, 0]]),
        probabilities={
            "verb": np.array([[0.9, 0.1, 0], [0.2, 0.3, 0.5], [0.8, 0.1, 0.1], [0.1, 0.9, 0]], np.float32),
            "noun": np.array([[0.6, 0.4], [0.1, 0.9], [0.7, 0.3], [0.8, 0.2]], np.float32),
        },
        num_views=np.full(4, 6, np.int32),
        label_map=LabelMap({"verb": ("x", "y", "z"), "noun": ("p", "q")}),
        checkpoint="",
    )
    metrics = evaluate(predictions)
    assert metrics.fields["verb"].confusion.tolist() == [[2, 0, 1], [0, 1, 0], [0, 0, 0]]
    # Class z has no clips, so the mean is over x (2 of 3) and y (1 of 1).
    assert metrics.summary() == pytest.approx(
        {
            "verb_top1": 3 / 4,
            "verb_mean_class_accuracy": (2 / 3 + 1) / 2,
            "noun_top1": 3 / 4,
            "noun_mean_class_accuracy": (1 + 1 / 2) / 2,
            "action_top1": 2 / 4,
        }
    )
    assert metrics.fields["verb"].chance == pytest.approx(1 / 3)
    assert metrics.action_chance == pytest.approx(1 / 6)


def test_one_label_has_no_action_and_top5_only_from_five_classes_on(make_predictions):
    few = evaluate(make_predictions({"label": tuple("abcd")}, clips=30))
    assert set(few.summary()) == {"label_top1", "label_mean_class_accuracy"}
    many = evaluate(make_predictions({"label": tuple("abcdefgh")}, clips=30))
    assert set(many.summary()) == {"label_top1", "label_top5", "label_mean_class_accuracy"}


@given(st.integers(1, 30), st.integers(2, 9), st.integers(1, 9), st.integers(0, 10_000))
def test_top_k_counts_what_a_sorted_list_would(clips, classes, k, seed):
    random = np.random.default_rng(seed)
    # Few distinct values, so that ties are common.
    probabilities = random.integers(0, 3, (clips, classes)).astype(np.float32)
    true = random.integers(0, classes, clips)
    hits = 0
    for row, answer in zip(probabilities.tolist(), true.tolist(), strict=True):
        ranking = sorted(range(classes), key=lambda index, row=row: (-row[index], index))
        hits += answer in ranking[:k]
    assert top_k_accuracy(true, probabilities, k) == pytest.approx(hits / clips)


def test_top1_is_the_share_on_the_diagonal_even_with_ties(make_predictions):
    predictions = make_predictions({"label": tuple("abcdef")}, clips=50)
    predictions.probabilities["label"][:] = predictions.probabilities["label"].round(1)
    metrics = evaluate(predictions).fields["label"]
    assert metrics.top1 == pytest.approx(metrics.confusion.trace() / 50)
