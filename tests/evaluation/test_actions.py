"""The action score: products over all pairs, against a literal reference and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import top_k_accuracy_score

from cast_ray.evaluation.actions import action_hits, top_actions
from cast_ray.evaluation.metrics import top_k_hits

EK100 = {"verb": tuple(f"v{index}" for index in range(97)), "noun": tuple(f"n{index}" for index in range(300))}


def test_hits_are_those_of_scikit_learn_over_all_29100_pairs(make_predictions, monkeypatch):
    # Several chunks, so that the last rows are looked at too.
    monkeypatch.setattr("cast_ray.evaluation.actions.ROWS_AT_ONCE", 70)
    predictions = make_predictions(EK100, clips=200, skill=3)
    products = np.einsum(
        "nv,no->nvo", *(predictions.probabilities[field].astype(np.float64) for field in ("verb", "noun"))
    )
    true = predictions.true("verb") * 300 + predictions.true("noun")
    hits = action_hits(predictions, (1, 5))
    for k in (1, 5):
        theirs = top_k_accuracy_score(true, products.reshape(200, -1), k=k, labels=np.arange(29_100), normalize=False)
        assert hits[k].sum() == theirs
    assert 0 < hits[1].sum() < hits[5].sum() < 200


def test_top1_is_both_right_and_top5_is_less_than_both_in_their_five_best(make_predictions):
    """What the official score says beside the counts that are often reported in its place."""
    predictions = make_predictions(EK100, clips=500, skill=3)
    hits = action_hits(predictions, (1, 5))
    np.testing.assert_array_equal(hits[1], predictions.right("verb", "noun"))
    both = np.all([top_k_hits(predictions.true(field), predictions.probabilities[field], 5) for field in EK100], axis=0)
    assert (both | ~hits[5]).all()
    assert both.sum() > 1.1 * hits[5].sum()


def test_a_case_by_hand():
    verbs, nouns = np.array([[0.5, 0.3, 0.2]], np.float32), np.array([[0.1, 0.9]], np.float32)
    pairs, scores = top_actions(verbs, nouns, 4)
    assert pairs[0].tolist() == [[0, 1], [1, 1], [2, 1], [0, 0]]
    assert scores[0] == pytest.approx([0.45, 0.27, 0.18, 0.05])


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 8), st.integers(1, 8), st.integers(1, 70), st.integers(0, 10_000))
def test_the_best_pairs_are_those_of_sorting_all_of_them(verbs, nouns, k, seed):
    random = np.random.default_rng(seed)
    # Few distinct values, zeros among them, so that ties are common.
    verb, noun = (random.integers(0, 4, (3, size)).astype(np.float32) for size in (verbs, nouns))
    pairs, scores = top_actions(verb, noun, k)
    for row in range(3):
        ranks = [sorted(range(len(p)), key=lambda index, p=p: (-p[index], index)) for p in (verb[row], noun[row])]
        every = [(i, j) for i in range(verbs) for j in range(nouns)]
        every.sort(key=lambda pair, row=row, ranks=ranks: (
            -float(verb[row, pair[0]]) * float(noun[row, pair[1]]), ranks[0].index(pair[0]), ranks[1].index(pair[1])
        ))  # fmt: skip
        assert [tuple(pair) for pair in pairs[row].tolist()] == every[:k]
        assert scores[row].tolist() == [float(verb[row, i]) * float(noun[row, j]) for i, j in every[:k]]
