"""Byte ranges: what lies at a place in a Parquet file is the value that was written there."""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cast_ray.data.ranges import encoded_size, places, split_values, writer_options

SCHEMA = pa.schema(
    [
        pa.field("name", pa.string()),
        pa.field("one", pa.large_binary()),
        pa.field("many", pa.list_(pa.large_binary())),
        pa.field("last", pa.string()),
    ]
)
PATHS = ["one", "many.list.element"]
Row = tuple[bytes | None, list[bytes] | None]


def written(rows: list[Row]) -> tuple[bytes, list[list[int]]]:
    """The file and the places in it."""
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, SCHEMA, **writer_options(PATHS)) as writer:
        for one, many in rows:
            values = {"name": "x", "one": one, "many": many, "last": "y"}
            writer.write_table(pa.Table.from_pylist([values], schema=SCHEMA))
    sizes = [[encoded_size([] if one is None else [one]), encoded_size(many or [])] for one, many in rows]
    data = sink.getvalue()
    return data, places(pq.read_metadata(io.BytesIO(data)), PATHS, sizes)


def read(data: bytes, place: list[int]) -> list[list[bytes]]:
    return [split_values(data[at : at + size]) for at, size in zip(place[::2], place[1::2], strict=True)]


@settings(deadline=None)
@given(st.lists(st.tuples(st.none() | st.binary(), st.none() | st.lists(st.binary(), max_size=5)), min_size=1))
def test_every_value_is_found_where_its_place_says_and_by_any_reader_of_parquet(rows: list[Row]) -> None:
    data, found = written(rows)
    assert [read(data, place) for place in found] == [[[] if one is None else [one], many or []] for one, many in rows]
    table = pq.read_table(io.BytesIO(data))
    assert list(zip(table["one"].to_pylist(), table["many"].to_pylist(), strict=True)) == rows


def test_large_values_and_long_lists_are_one_page() -> None:
    """Parquet's writers begin a new page after 1 MB or 1024 values, unless told otherwise."""
    rows: list[Row] = [(b"v" * 5_000_000, [bytes([i % 256]) * 1000 for i in range(5000)]), (b"", [])]
    data, found = written(rows)
    assert read(data, found[0]) == [[rows[0][0]], rows[0][1]]


@pytest.mark.parametrize("data", [b"\x01", b"\x05\x00\x00\x00abc", b"\x01\x00\x00\x00ab"])
def test_bytes_that_are_not_whole_values_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="no whole values"):
        split_values(data)
