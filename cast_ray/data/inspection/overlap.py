"""Which clips show seconds of a file that a clip of another split shows too."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["Overlap", "overlap_of_splits"]


class Overlap(NamedTuple):
    """A clip, and one of another split that it shares seconds with."""

    clip_id: str
    split: str
    other_clip_id: str
    other_split: str


class _Stretch(NamedTuple):
    uri: str
    start_s: float
    stop_s: float
    clip_id: str
    split: str


def overlap_of_splits(index: pa.Table) -> list[Overlap]:
    """Every clip that shares seconds with another split's, once; without bounds a clip is its whole file.

    Args:
        index: rows of a dataset's index.
    """
    splits = index.group_by("uri").aggregate([("split", "count_distinct")])
    shared = splits.filter(pc.greater(splits["split_count_distinct"], 1))["uri"]
    rows = index.filter(pc.is_in(index["uri"], value_set=shared.combine_chunks()))
    columns = [rows[name].to_pylist() for name in ("uri", "source_start_s", "source_stop_s", "clip_id", "split")]
    stretches = sorted(
        _Stretch(uri, 0.0 if start is None else start, math.inf if stop is None else stop, clip_id, split)
        for uri, start, stop, clip_id, split in zip(*columns, strict=True)
    )
    found: dict[str, Overlap] = {}
    for _, group in groupby(stretches, key=lambda stretch: stretch.uri):
        of_file = list(group)
        # What a clip meets began before it, then the longest so far is met; or after it, then the next is.
        _add_met(found, of_file, key=lambda stretch: stretch.stop_s)
        _add_met(found, of_file[::-1], key=lambda stretch: -stretch.start_s)
    return list(found.values())


def _add_met(found: dict[str, Overlap], stretches: Sequence[_Stretch], key: Callable[[_Stretch], float]) -> None:
    """Go through the stretches of one file; each is compared with the one of greatest `key` so far of each split."""
    greatest: dict[str, _Stretch] = {}
    for here in stretches:
        for split, other in greatest.items():
            if split != here.split and other.start_s < here.stop_s and here.start_s < other.stop_s:
                found.setdefault(here.clip_id, Overlap(here.clip_id, here.split, other.clip_id, split))
        if here.split not in greatest or key(here) >= key(greatest[here.split]):
            greatest[here.split] = here
