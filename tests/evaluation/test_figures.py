"""The headline figures: the same as the metrics, and on the subsets of EPIC-KITCHENS-100 as the official evaluation."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from cast_ray.data.catalog.ek100 import Ek100Subsets
from cast_ray.errors import UserError
from cast_ray.evaluation.figures import figures
from cast_ray.evaluation.metrics import evaluate
from cast_ray.evaluation.predictions import Predictions
from cast_ray.labels import LabelMap

SUBSETS = Ek100Subsets(
    unseen_participants=frozenset({"P18", "P32"}), tail_verbs=frozenset({2, 3}), tail_nouns=frozenset({1})
)


@pytest.mark.parametrize("names", [{"label": 3}, {"verb": 8, "noun": 6}, {"verb": 1, "noun": 2}, {"a": 5, "b": 4}])
def test_they_are_those_of_the_metrics_in_the_same_order(make_predictions, names):
    predictions = make_predictions(
        {field: tuple(f"{field} {index}" for index in range(size)) for field, size in names.items()}, clips=90
    )
    summary = evaluate(predictions).summary()
    found = {name: figure.value for name, figure in figures(predictions).items()}
    assert list(found) == sorted(summary, key=list(found).index)
    assert found == pytest.approx(summary)


def _one_hot(classes, size):
    return np.eye(size, dtype=np.float32)[list(classes)]


@pytest.fixture
def kitchen():
    """Six clips by hand: (participant, verb, noun) and what the model says of them."""
    return Predictions(
        clip_ids=("P18_01_0", "P18_02_1", "P32_01_2", "P01_01_3", "P01_01_4", "P180_01_5"),
        labels=np.array([[0, 0], [2, 0], [0, 1], [3, 1], [0, 0], [2, 0]]),
        probabilities={"verb": _one_hot([0, 2, 0, 0, 1, 2], 4), "noun": _one_hot([0, 1, 1, 1, 0, 0], 2)},
        num_views=np.ones(6, np.int32),
        label_map=LabelMap({"verb": tuple("abcd"), "noun": tuple("xy")}),
        checkpoint="",
    )


def test_unseen_participants_and_tail_classes_by_hand(kitchen):
    found = figures(kitchen, SUBSETS)
    assert {name: round(figure.value, 6) for name, figure in found.items() if "unseen" in name or "tail" in name} == {
        # Clips 0, 1, 2; participant P180 is not P18.
        "unseen_verb_top1": 1.0,
        "unseen_noun_top1": round(2 / 3, 6),
        "unseen_action_top1": round(2 / 3, 6),
        # Verbs 2 and 3: clips 1, 3, 5.
        "tail_verb_top1": round(2 / 3, 6),
        # Noun 1: clips 2, 3.
        "tail_noun_top1": 1.0,
        # Either: clips 1, 2, 3, 5, of which 2 and 5 have both right. A share of clips, not a mean over classes.
        "tail_action_top1": 0.5,
    }


def test_a_subset_without_clips_has_no_number(kitchen):
    nobody = dataclasses.replace(SUBSETS, unseen_participants=frozenset({"P99"}))
    assert np.isnan(figures(kitchen, nobody)["unseen_action_top1"].value)


def test_subsets_of_another_dataset_are_refused(kitchen, make_predictions):
    with pytest.raises(UserError, match=r"has verbs and nouns, these predictions are for \['label'\]"):
        figures(make_predictions({"label": tuple("abc")}, clips=3), SUBSETS)
    with pytest.raises(UserError, match="tail verbs go up to 96, the predictions have 4 verb classes"):
        figures(kitchen, dataclasses.replace(SUBSETS, tail_verbs=frozenset({5, 96})))
