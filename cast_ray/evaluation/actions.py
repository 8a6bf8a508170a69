"""Which verb-noun pairs a model means: the official action score of EPIC-KITCHENS-100, the product of probabilities.

The score of the action (v, n) is p(v) p(n), over all 97 x 300 pairs, whether they occur in the data or not
(https://github.com/epic-kitchens/C1-Action-Recognition, utils/scoring.py).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from cast_ray.evaluation.predictions import Predictions
from cast_ray.labels import NOUN, VERB

__all__ = ["action_hits", "top_actions"]

ROWS_AT_ONCE = 4096


def action_hits(predictions: Predictions, ks: Sequence[int]) -> dict[int, npt.NDArray[np.bool_]]:
    """For each k of `ks`, [n] whether the true pair is among the k best of all pairs."""
    hits = {k: np.zeros(len(predictions.clip_ids), bool) for k in ks}
    true = np.stack([predictions.true(VERB), predictions.true(NOUN)], axis=-1)
    for start in range(0, len(true), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        pairs, _ = top_actions(predictions.probabilities[VERB][rows], predictions.probabilities[NOUN][rows], max(ks))
        found = (pairs == true[rows, None]).all(axis=-1)
        for k in ks:
            hits[k][rows] = found[:, :k].any(axis=1)
    return hits


def top_actions(
    verbs: npt.NDArray[np.float32], nouns: npt.NDArray[np.float32], k: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """The k best verb-noun pairs of each clip, best first; fewer if there are fewer pairs.

    The pair of the i-th best verb and the j-th best noun is no better than the i j pairs of verbs and nouns at least as
    good, so that only pairs with i j <= k can be among the k best: 482 of 29,100 for k = 100, and 10 for k = 5. Of
    pairs with the same product, the one with the better verb is first, then the one with the better noun; of classes
    with the same probability the lower index. The best pair is thus always that of the best verb and the best noun.

    Args:
        verbs: [n, verb classes] probabilities.
        nouns: [n, noun classes] probabilities.
        k: how many pairs.

    Returns:
        (verb, noun) indices [n, k, 2], and the products of their probabilities [n, k].
    """
    best_verbs, best_nouns = _ranking(verbs, k), _ranking(nouns, k)
    places = [(i, j) for i in range(best_verbs.shape[1]) for j in range(best_nouns.shape[1]) if (i + 1) * (j + 1) <= k]
    verb_place, noun_place = np.array(places).T
    pairs = np.stack([best_verbs[:, verb_place], best_nouns[:, noun_place]], axis=-1)
    # Float64 holds the product of two float32 exactly.
    scores = np.take_along_axis(verbs, pairs[..., 0], axis=1).astype(np.float64)
    scores *= np.take_along_axis(nouns, pairs[..., 1], axis=1)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(pairs, order[..., None], axis=1), np.take_along_axis(scores, order, axis=1)


def _ranking(probabilities: npt.NDArray[np.float32], k: int) -> npt.NDArray[np.int64]:
    """[n, k] indices of the k highest of each row, the highest first and the lower index first in a tie."""
    return np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
