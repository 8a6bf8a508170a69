"""Where the clips of a prepared dataset lie: Parquet shards with the encoded video inside, and their index.

Layout under one URI, local or remote (anything that `pyarrow.fs` opens)::

    train/shard-00000.parquet ...        one row per clip, one row group per row
    validation/shard-00000.parquet ...
    index.parquet                        every column except the media
    dataset.json                         written last: a dataset without it is not complete

One row group per clip makes a clip readable by itself, so that the order of training is a free choice (see
`cast_ray.data.order`) and not a property of the files.
"""

from __future__ import annotations

import functools
import hashlib
import json
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from cast_ray.data.manifest import Clip, Manifest
from cast_ray.errors import UserError
from cast_ray.labels import LabelMap

__all__ = [
    "MEDIA",
    "ShardPlan",
    "ShardedDataset",
    "check_writable",
    "filesystem",
    "fingerprint",
    "open_dataset",
    "read_media",
    "shard_plan",
    "write_index",
    "write_shard",
]

MEDIA = "video"
"""Name of the column with the encoded video."""

CLIPS_PER_SHARD = 256
FORMAT_VERSION = 1

_INDEX_FIELDS = [
    pa.field("clip_id", pa.string()),
    pa.field("labels", pa.list_(pa.int32())),
    pa.field("split", pa.string()),
    pa.field("start_s", pa.float64()),
    pa.field("stop_s", pa.float64()),
    pa.field("uri", pa.string()),
]
_SHARD_SCHEMA = pa.schema([*_INDEX_FIELDS, pa.field(MEDIA, pa.large_binary())])
_INDEX_SCHEMA = pa.schema([*_INDEX_FIELDS, pa.field("shard", pa.string()), pa.field("row", pa.int64())])


@dataclass(frozen=True, kw_only=True)
class ShardPlan:
    """One shard to write: its path below the dataset's root and its clips in order."""

    path: str
    clips: tuple[Clip, ...]


@dataclass(frozen=True, kw_only=True)
class ShardedDataset:
    """A complete prepared dataset: where it is, what its clips are, without their media."""

    uri: str
    label_map: LabelMap
    fingerprint: str
    index: pa.Table
    """One row per clip: the shard columns without the media, plus `shard` (path below `uri`) and `row`."""

    def split(self, name: str) -> pa.Table:
        """The index rows of one split, in manifest order; an empty split is a `UserError`."""
        table = self.index.filter(pc.equal(self.index["split"], name))
        if not table.num_rows:
            raise UserError(f"the dataset at {self.uri} has no clips in split '{name}'; prepare it with such clips")
        return table


def filesystem(uri: str) -> tuple[pafs.FileSystem, str]:
    """The file system of a URI or local path, and the path inside it."""
    try:
        if "://" in uri:
            return pafs.FileSystem.from_uri(uri)
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(
            f"cannot open storage '{uri}': {error}; give a folder, or a URI such as s3://bucket/path"
        ) from error
    return pafs.LocalFileSystem(), str(Path(uri).absolute())


def check_writable(uri: str) -> None:
    """Raise `UserError` unless files can be written below `uri`; the folder is made if it is missing."""
    storage, path = filesystem(uri)
    probe = f"{path}/.probe-{uuid.uuid4().hex}"
    try:
        storage.create_dir(path, recursive=True)
        with storage.open_output_stream(probe) as sink:
            sink.write(b"probe")
        storage.delete_file(probe)
    except OSError as error:
        raise UserError(
            f"cannot write to storage '{uri}': {error}; give a folder or URI that you may write to"
        ) from error


def fingerprint(manifest: Manifest) -> str:
    """First 16 hex digits of a SHA-256 over label map and clips: equal manifests share prepared shards."""
    digest = hashlib.sha256(manifest.label_map.to_json().encode())
    for clip in manifest.clips:
        row = (clip.clip_id, clip.uri, clip.labels, clip.split, clip.start_s, clip.stop_s)
        digest.update(repr(row).encode())
    return digest.hexdigest()[:16]


def shard_plan(manifest: Manifest) -> list[ShardPlan]:
    """Which clips go into which shard: consecutive runs of each split."""
    plans = []
    for split in dict.fromkeys(clip.split for clip in manifest.clips):
        clips = manifest.split(split)
        for number, first in enumerate(range(0, len(clips), CLIPS_PER_SHARD)):
            path = f"{split}/shard-{number:05d}.parquet"
            plans.append(ShardPlan(path=path, clips=clips[first : first + CLIPS_PER_SHARD]))
    return plans


def write_shard(root: str, plan: ShardPlan) -> int:
    """Write one shard unless it is there already; it appears under its name only when complete.

    Returns:
        The shard's size in bytes.

    Raises:
        UserError: a video file cannot be read.
    """
    storage, base = filesystem(root)
    path = f"{base}/{plan.path}"
    info = storage.get_file_info(path)
    if info.type == pafs.FileType.File:
        return info.size
    storage.create_dir(path.rsplit("/", 1)[0], recursive=True)
    with _written_whole(storage, path) as sink, pq.ParquetWriter(sink, _SHARD_SCHEMA, compression="none") as writer:
        for clip in plan.clips:
            row = _index_row(clip) | {MEDIA: _read_file(clip)}
            writer.write_table(pa.Table.from_pylist([row], schema=_SHARD_SCHEMA))
    return storage.get_file_info(path).size


def write_index(root: str, manifest: Manifest) -> ShardedDataset:
    """Write the index and, last of all, `dataset.json`; call it when every shard is there."""
    storage, base = filesystem(root)
    rows = [
        _index_row(clip) | {"shard": plan.path, "row": row}
        for plan in shard_plan(manifest)
        for row, clip in enumerate(plan.clips)
    ]
    index = pa.Table.from_pylist(rows, schema=_INDEX_SCHEMA)
    with _written_whole(storage, f"{base}/index.parquet") as sink:
        pq.write_table(index, sink)
    head = {
        "format_version": FORMAT_VERSION,
        "fingerprint": fingerprint(manifest),
        "clips": index.num_rows,
        "label_map": manifest.label_map.to_json(),
    }
    text = json.dumps(head, indent=2).encode()
    with _written_whole(storage, f"{base}/dataset.json") as sink:
        sink.write(text)
    return ShardedDataset(uri=root, label_map=manifest.label_map, fingerprint=head["fingerprint"], index=index)


def open_dataset(root: str) -> ShardedDataset | None:
    """The prepared dataset at `root`, or None if there is no complete one.

    Raises:
        UserError: `dataset.json` is there but was written by another format version.
    """
    storage, base = filesystem(root)
    if storage.get_file_info(f"{base}/dataset.json").type != pafs.FileType.File:
        return None
    with storage.open_input_file(f"{base}/dataset.json") as source:
        head: dict[str, Any] = json.loads(source.read())
    if head.get("format_version") != FORMAT_VERSION:
        raise UserError(
            f"the dataset at {root} has format version {head.get('format_version')}, this program reads "
            f"{FORMAT_VERSION}; prepare it again into another folder"
        )
    with storage.open_input_file(f"{base}/index.parquet") as source:
        index = pq.read_table(source)
    return ShardedDataset(
        uri=root, label_map=LabelMap.from_json(head["label_map"]), fingerprint=head["fingerprint"], index=index
    )


def read_media(root: str, shards: Sequence[str], rows: Sequence[int]) -> Iterator[bytes]:
    """The encoded videos at `(shard, row)`, in the order asked for."""
    for shard, row in zip(shards, rows, strict=True):
        table = _open_shard(root, shard).read_row_group(row, columns=[MEDIA])
        yield table[MEDIA][0].as_py()


@functools.lru_cache(maxsize=1024)
def _open_shard(root: str, shard: str) -> pq.ParquetFile:
    """An open shard. The cache keeps footers: while the shards fit into it, a clip costs one range read."""
    storage, base = filesystem(root)
    return pq.ParquetFile(storage.open_input_file(f"{base}/{shard}"))


@contextmanager
def _written_whole(storage: pafs.FileSystem, path: str) -> Iterator[pa.NativeFile]:
    """A stream to a file that has its name only when the block has ended without an error."""
    part = f"{path}.{uuid.uuid4().hex}.part"  # two jobs may prepare the same dataset at once
    with storage.open_output_stream(part) as sink:
        yield sink
    storage.move(part, path)


def _index_row(clip: Clip) -> dict[str, Any]:
    return {
        "clip_id": clip.clip_id,
        "labels": list(clip.labels),
        "split": clip.split,
        "start_s": clip.start_s,
        "stop_s": clip.stop_s,
        "uri": clip.uri,
    }


def _read_file(clip: Clip) -> bytes:
    storage, path = filesystem(clip.uri)
    try:
        with storage.open_input_stream(path) as source:
            return source.read()
    except OSError as error:
        raise UserError(f"cannot read the video of clip '{clip.clip_id}' at {clip.uri}: {error}") from error
