"""Which clips a report shows: of every kind of agreement between the runs, and of many classes."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt

from cast_ray.evaluation.predictions import Predictions

__all__ = ["choose_examples", "pattern_name"]


def choose_examples(
    runs: Sequence[Predictions], *, count: int = 12, among: Collection[str] | None = None
) -> tuple[str, ...]:
    """Ids of up to `count` clips to show, those that fewest runs have right first.

    Clips that the same runs have right are of one kind; the kinds get equally many places, as far as there are clips.
    Within a kind the clips are spread over the true classes. Of a single run, half are wrong and half are right.

    Args:
        runs: predictions for the same clips in the same order.
        count: how many.
        among: ids to choose from; None: all.
    """
    first = runs[0]
    allowed = np.ones(len(first.clip_ids), bool)
    if among is not None:
        allowed = np.array([clip_id in among for clip_id in first.clip_ids])
    right = np.stack([run.right() for run in runs])
    by_class = np.lexsort(first.labels.T[::-1])
    by_class = by_class[allowed[by_class]]
    kinds = right[:, by_class].T
    patterns = sorted({tuple(row) for row in kinds.tolist()}, key=lambda row: (sum(row), [not one for one in row]))
    groups = [by_class[(kinds == pattern).all(axis=1)] for pattern in patterns]
    chosen = [_spread(group, share) for group, share in zip(groups, _shares(groups, count), strict=True)]
    return tuple(first.clip_ids[row] for rows in chosen for row in rows)


def pattern_name(right: Sequence[bool], names: Sequence[str]) -> str:
    """Who is right, in words."""
    if len(names) == 1:
        return "right" if right[0] else "wrong"
    good = [name for name, is_right in zip(names, right, strict=True) if is_right]
    if not good:
        return "none is right"
    if len(good) == len(names):
        return "both are right" if len(names) == 2 else "all are right"
    return f"only {' and '.join(good)}"


def _shares(groups: Sequence[npt.NDArray[np.int64]], count: int) -> list[int]:
    """How many clips each group gives: equally many, and what small ones cannot give from the others."""
    shares = [0] * len(groups)
    while count > 0:
        open_groups = [index for index, group in enumerate(groups) if shares[index] < len(group)]
        if not open_groups:
            break
        for index in open_groups[:count]:
            shares[index] += 1
        count -= min(count, len(open_groups))
    return shares


def _spread(rows: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int64]:
    """`count` of the rows at even distances, or all if there are fewer."""
    if len(rows) <= count:
        return rows
    return rows[np.arange(count) * len(rows) // count]
