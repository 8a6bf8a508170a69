"""Where in a Parquet file the bytes of one row's values are, so that they can be read without its footer.

The footer of a shard of 256 clips, one row group each, took 2 ms and 4.5 MB of memory to open, and a decoder would hold
those of all shards. A column chunk that is one uncompressed page of plain encoding ends with its values, each after its
length (https://parquet.apache.org/docs/file-format/data-pages/encodings/), so that a chunk's end and the values' size
tell where they begin.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import pyarrow.parquet as pq

__all__ = ["encoded_size", "places", "split_values", "writer_options"]

_PREFIX = 4
"""Bytes of the length before every value."""


def writer_options(paths: Sequence[str]) -> dict[str, object]:
    """Options of a `ParquetWriter` that make one uncompressed page of every column chunk.

    Args:
        paths: of the columns whose places are wanted, in the Parquet schema ("frames.list.element").
    """
    return {
        "compression": "none",
        "use_dictionary": False,
        "write_statistics": False,
        "column_encoding": dict.fromkeys(paths, "PLAIN"),
        "data_page_size": 2**31 - 1,
        "write_batch_size": 2**31 - 1,
    }


def encoded_size(values: Sequence[bytes]) -> int:
    """Bytes that the values take in the file."""
    return sum(_PREFIX + len(value) for value in values)


def places(metadata: pq.FileMetaData, paths: Sequence[str], sizes: Sequence[Sequence[int]]) -> list[list[int]]:
    """First byte in the file and bytes, for every column one after the other; one list per row group.

    Args:
        metadata: of a file with one row per row group, written with `writer_options`.
        paths: of the columns.
        sizes: per row group, the `encoded_size` of each column.
    """
    names = [metadata.schema.column(number).path for number in range(metadata.num_columns)]
    columns = [names.index(path) for path in paths]
    found = []
    for group, group_sizes in enumerate(sizes):
        place = []
        for column, size in zip(columns, group_sizes, strict=True):
            chunk = metadata.row_group(group).column(column)
            place += [chunk.data_page_offset + chunk.total_compressed_size - size, size]
        found.append(place)
    return found


def split_values(data: bytes) -> list[bytes]:
    """The values in a range of bytes; `ValueError` unless it holds whole values and nothing else."""
    values, at = [], 0
    while at < len(data):
        first = at + _PREFIX
        length = struct.unpack_from("<I", data, at)[0] if first <= len(data) else len(data)
        at = first + length
        if at > len(data):
            raise ValueError("there are no whole values where the index says")
        values.append(data[first:at])
    return values
