"""How a batch prediction keeps to the files that were there when it began."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from cast_ray.data.storage import absolute, filesystem, joined, retried, written_whole
from cast_ray.errors import UserError
from cast_ray.evaluation.listing import TABLES, Listing, list_clips
from cast_ray.evaluation.prediction_files import HIDDEN

__all__ = ["KEPT", "kept_listing"]

KEPT = "_input.parquet"
"""The list of clips, in the folder of the predictions."""
SOURCE_KEY, ROOT_KEY = b"cast_ray.source", b"cast_ray.root"


def kept_listing(source: str, output: str) -> Listing:
    """The clips of a source: those that an earlier process of the same job found, else as `list_clips`.

    Files that come later would shift the parts, and so belong to another job. Tables are not kept: they do not change
    by themselves.

    Raises:
        UserError: as `list_clips`, and if the predictions in `output` are of another source.
    """
    if source.lower().endswith(TABLES):
        return list_clips(source)
    storage, folder = filesystem(output)
    place, source = f"{folder}/{KEPT}", absolute(source)
    kept = retried(lambda: storage.get_file_info(place), what=output)
    if kept.type == pafs.FileType.File:
        clips = retried(lambda: _read(storage, place), what=joined(output, KEPT))
        metadata = clips.schema.metadata
        was = metadata[SOURCE_KEY].decode()
        if was != source:
            raise UserError(f"'{output}' holds predictions of {was}, not of {source}; give another folder")
        root = metadata[ROOT_KEY].decode()
        return Listing(clips=clips.replace_schema_metadata(None), root=root, left_out=Counter())
    listing = list_clips(source)
    selector = pafs.FileSelector(folder, allow_not_found=True)
    there = retried(lambda: storage.get_file_info(selector), what=output)
    if all(info.base_name.startswith(HIDDEN) for info in there):  # what else is there will be refused
        marked = listing.clips.replace_schema_metadata({SOURCE_KEY: source.encode(), ROOT_KEY: listing.root.encode()})
        retried(lambda: _write(storage, place, marked), what=joined(output, KEPT))
    return listing


def _read(storage: pafs.FileSystem, place: str) -> pa.Table:
    with storage.open_input_file(place) as file:
        return pq.read_table(file)


def _write(storage: pafs.FileSystem, place: str, clips: pa.Table) -> None:
    storage.create_dir(place.rpartition("/")[0], recursive=True)
    with written_whole(storage, place) as sink:
        pq.write_table(clips, sink, compression="zstd")
