"""Which clips stand for a dataset on a contact sheet: spread over splits and classes, the same for the same seed."""

from __future__ import annotations

import difflib
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cast_ray.data.shards import ShardedDataset
from cast_ray.errors import UserError

__all__ = ["sample_clips"]

Integers = NDArray[np.int64]


def sample_clips(
    dataset: ShardedDataset, count: int, *, split: str | None = None, label: str | None = None, seed: int = 0
) -> pa.Table:
    """At most `count` index rows, in the order of splits and labels.

    Splits take turns; each gives a clip of the classes that were taken least so far. Clips that cannot be used come
    only where there are too few others.

    Args:
        dataset: to take from.
        count: of clips.
        split: only from this one.
        label: only clips of the class with this name, in any field.
        seed: of the choice.

    Raises:
        UserError: there is no such split or class, or no such clip.
    """
    rows = dataset.index
    names = pc.unique(rows["split"]).to_pylist()
    if split is not None:
        if split not in names:
            raise UserError(f"--split is '{split}'; the dataset has the splits {names}")
        rows = rows.filter(pc.equal(rows["split"], split))
    labels = np.array(rows["labels"].to_pylist(), np.int64).reshape(rows.num_rows, -1)
    if label is not None:
        kept = _with_label(dataset, labels, label)
        if not kept.any():
            where = f"split '{split}'" if split is not None else "the dataset"
            raise UserError(f"--label is '{label}', a class without clips in {where}; choose another")
        rows, labels = rows.filter(pa.array(kept)), labels[kept]
    chosen = _spread(
        labels,
        np.array([names.index(name) for name in rows["split"].to_pylist()]),
        rows["num_frames"].is_null().to_numpy(),
        min(count, rows.num_rows),
        np.random.default_rng(seed),
    )
    return rows.take(sorted(chosen, key=lambda row: (names.index(rows["split"][row].as_py()), *labels[row], row)))


def _with_label(dataset: ShardedDataset, labels: Integers, label: str) -> NDArray[np.bool_]:
    """Which clips [N] have the label in any field; labels are [N, F]."""
    fields = dataset.label_map.names.values()
    if not any(label in names for names in fields):
        every = [name for names in fields for name in names]
        near = [name for name in every if label.lower() in name.lower()][:3]
        near = near or difflib.get_close_matches(label, every, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(repr(name) for name in near)}?" if near else "--all-classes shows all"
        raise UserError(f"--label is '{label}', which no class of the dataset is called; {hint}")
    wanted = [names.index(label) if label in names else -1 for names in fields]
    return (labels == wanted).any(axis=1)


def _spread(
    labels: Integers, splits: Integers, unusable: NDArray[np.bool_], count: int, rng: np.random.Generator
) -> list[int]:
    """Numbers of `count` rows; `labels` are [N, F], `splits` and `unusable` [N]."""
    shuffled = rng.permutation(len(labels))
    free = np.ones(len(labels), bool)
    from_split = np.zeros(splits.max() + 1, np.int64)
    from_class = np.zeros((labels.shape[1], labels.max() + 1), np.int64)
    fields = np.arange(labels.shape[1])
    chosen: list[int] = []
    while len(chosen) < count:
        rows = shuffled[free[shuffled]]
        rows = _least(rows, unusable[rows])
        rows = _least(rows, from_split[splits[rows]])
        rows = _least(rows, from_class[fields, labels[rows]].sum(axis=1))
        row = int(rows[0])
        chosen.append(row)
        free[row] = False
        from_split[splits[row]] += 1
        from_class[fields, labels[row]] += 1
    return chosen


def _least(rows: Integers, cost: NDArray[Any]) -> Integers:
    """Those of the rows with the smallest cost."""
    return rows[cost == cost.min()]
