"""Clips of two splits with the same seconds of a file are found: all of them, and no others."""

from __future__ import annotations

import math

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from cast_ray.data.inspection.overlap import overlap_of_splits

SECONDS = st.none() | st.integers(0, 12).map(float)
ROWS = st.lists(
    st.tuples(st.sampled_from(["train", "validation", "test"]), st.sampled_from(["x", "y"]), SECONDS, SECONDS).filter(
        lambda row: None in row[2:] or row[2] < row[3]
    ),
    max_size=9,
)


def index(rows) -> pa.Table:
    columns = {name: [] for name in ("clip_id", "split", "uri", "source_start_s", "source_stop_s")}
    for number, row in enumerate(rows):
        for name, value in zip(columns, (str(number), *row), strict=True):
            columns[name].append(value)
    types = {"source_start_s": pa.float64(), "source_stop_s": pa.float64()}
    return pa.table({name: pa.array(values, types.get(name, pa.string())) for name, values in columns.items()})


def meet(first, second) -> bool:
    """The literal rule: another split, the same file, and a moment in common."""
    starts = [row[2] or 0.0 for row in (first, second)]
    stops = [math.inf if row[3] is None else row[3] for row in (first, second)]
    return first[0] != second[0] and first[1] == second[1] and max(starts) < min(stops)


@settings(deadline=None)  # the first call loads libraries
@given(ROWS)
def test_every_clip_that_meets_another_splits_is_found_once_with_one_that_it_meets(rows):
    found = overlap_of_splits(index(rows))
    expected = {str(n) for n, row in enumerate(rows) if any(meet(row, other) for other in rows)}
    assert sorted(overlap.clip_id for overlap in found) == sorted(expected)
    for overlap in found:
        first, second = rows[int(overlap.clip_id)], rows[int(overlap.other_clip_id)]
        assert meet(first, second)
        assert (overlap.split, overlap.other_split) == (first[0], second[0])


def test_windows_that_only_touch_share_nothing():
    rows = [("train", "x", 0.0, 2.0), ("validation", "x", 2.0, 4.0), ("validation", "y", 0.0, 2.0)]
    assert overlap_of_splits(index(rows)) == []
