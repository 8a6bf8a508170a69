"""Whether two models' predictions can be compared, and which rows belong together."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cast_ray.errors import UserError
from cast_ray.evaluation.predictions import Predictions
from cast_ray.labels import LabelMap

__all__ = ["aligned_rows", "in_order_of", "label_differences"]

MOST_EXAMPLES = 3


def in_order_of(first_name: str, first: Predictions, name: str, other: Predictions) -> Predictions:
    """`other` with the clips in the order of `first`; raises as `aligned_rows`. Probabilities of views are left out."""
    rows = aligned_rows(first_name, first, name, other)
    return Predictions(
        clip_ids=first.clip_ids,
        labels=other.labels[rows],
        probabilities={field: values[rows] for field, values in other.probabilities.items()},
        num_views=other.num_views[rows],
        label_map=other.label_map,
        checkpoint=other.checkpoint,
    )


def aligned_rows(first_name: str, first: Predictions, name: str, other: Predictions) -> npt.NDArray[np.int64]:
    """Rows of `other` in the order of the clips of `first`.

    Args:
        first_name: what messages call `first`.
        first: predictions of one model.
        name: what messages call `other`.
        other: predictions of another model for the same clips.

    Raises:
        UserError: they have other label maps, clips or true labels; the message says which.
    """
    differences = label_differences(first.label_map, other.label_map)
    if differences:
        raise UserError(
            f"'{name}' and '{first_name}' have different label maps: {'; '.join(differences)}; only predictions with "
            "the same classes in the same order can be put together"
        )
    row_of = {clip_id: row for row, clip_id in enumerate(other.clip_ids)}
    lacking = [clip_id for clip_id in first.clip_ids if clip_id not in row_of]
    extra = sorted(row_of.keys() - set(first.clip_ids))
    if lacking or extra:
        raise UserError(
            f"'{name}' lacks {len(lacking)} clips of '{first_name}' {lacking[:MOST_EXAMPLES]} and has {len(extra)} "
            f"others {extra[:MOST_EXAMPLES]}; evaluate both on the same split of the same dataset"
        )
    rows = np.array([row_of[clip_id] for clip_id in first.clip_ids])
    differing = np.flatnonzero((other.labels[rows] != first.labels).any(axis=1))
    if len(differing):
        clip = int(differing[0])
        raise UserError(
            f"'{name}' and '{first_name}' have other true labels for {len(differing)} clips, such as "
            f"'{first.clip_ids[clip]}' ({other.labels[rows[clip]].tolist()} and {first.labels[clip].tolist()}); "
            "evaluate both with the same annotations"
        )
    return rows


def label_differences(first: LabelMap, other: LabelMap) -> list[str]:
    """What differs between two label maps, in words; nothing if they are the same."""
    if first.fields != other.fields:
        return [f"the fields are {list(other.fields)} and {list(first.fields)}"]
    found = []
    for field, ours in first.names.items():
        theirs = other.names[field]
        if len(ours) != len(theirs):
            found.append(f"{len(theirs)} and {len(ours)} {field} classes")
        only = [
            f"only one has {field} {sorted(one - rest)[:MOST_EXAMPLES]}"
            for one, rest in ((set(theirs), set(ours)), (set(ours), set(theirs)))
            if one - rest
        ]
        found += only
        if not only and ours != theirs:
            moved = [index for index, (left, right) in enumerate(zip(ours, theirs, strict=True)) if left != right]
            index = moved[0]
            found.append(
                f"{len(moved)} {field} classes are in another order, such as {index}: '{theirs[index]}' and "
                f"'{ours[index]}'"
            )
    return found
