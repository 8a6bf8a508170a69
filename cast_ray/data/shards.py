"""Where the clips of a prepared dataset lie: Parquet shards with the media inside, and their index.

Layout under one URI, local or remote (see `cast_ray.data.storage`)::

    train/shard-00000.parquet ...        one row per clip, one row group per row
    validation/shard-00000.parquet ...
    index.parquet                        every column except the media, and where these are
    dataset.json                         written last: a dataset without it is not complete

One row group per clip, neither compressed nor encoded, makes the media of a clip one range of bytes, which the index
names. So the order of training is a free choice (see `cast_ray.data.order`) and not a property of the files, a clip
costs one read of exactly its media, and decoders hold no footers (`docs/decisions.md`). Clips that cannot be used keep
their row, with the reason.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from cast_ray.data.manifest import Clip, Manifest
from cast_ray.data.media import Media, MediaFormat, StoredClip
from cast_ray.data.ranges import encoded_size, places, split_values, writer_options
from cast_ray.data.storage import file_sizes, filesystem, retried, written_whole
from cast_ray.errors import UserError
from cast_ray.labels import LabelMap

__all__ = [
    "CLIPS_PER_SHARD",
    "ShardPlan",
    "ShardedDataset",
    "fingerprint",
    "finished_shard",
    "open_complete",
    "open_dataset",
    "read_media",
    "shard_plan",
    "source_sizes",
    "write_index",
    "write_shard",
]

CLIPS_PER_SHARD = 256
DATASET_FILE = "dataset.json"
FORMAT_VERSION = 2
_VERSION_KEY = b"cast_ray_shard"
_OPEN_SHARDS = 512

_INDEX_FIELDS = [
    pa.field("clip_id", pa.string()),
    pa.field("labels", pa.list_(pa.int32())),
    pa.field("split", pa.string()),
    pa.field("uri", pa.string()),
    pa.field("source_start_s", pa.float64()),
    pa.field("source_stop_s", pa.float64()),
    pa.field("start_s", pa.float64()),
    pa.field("stop_s", pa.float64()),
    pa.field("reason", pa.string()),
    # Facts, null in the rows of quarantined clips.
    pa.field("num_frames", pa.int32()),
    pa.field("fps", pa.float64()),
    pa.field("width", pa.int32()),
    pa.field("height", pa.int32()),
    pa.field("video_codec", pa.string()),
    pa.field("sound_codec", pa.string()),
    pa.field("source", pa.string()),
    pa.field("bytes", pa.int64()),
    # Of video, frames and sound each, with the lengths before the values; 0 for what is not there.
    pa.field("encoded_bytes", pa.list_(pa.int64())),
]
_MEDIA_PATHS = {"video": "video", "frames": "frames.list.element", "sound": "sound"}
"""Media columns, and their paths in the Parquet schema."""
_PATHS = list(_MEDIA_PATHS.values())
_MEDIA_FIELDS = [
    pa.field("video", pa.large_binary()),
    pa.field("frames", pa.list_(pa.large_binary())),
    pa.field("sound", pa.large_binary()),
]
_SHARD_SCHEMA = pa.schema([*_INDEX_FIELDS, *_MEDIA_FIELDS], metadata={_VERSION_KEY: str(FORMAT_VERSION).encode()})
_INDEX_NAMES = [field.name for field in _INDEX_FIELDS]


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
    format: MediaFormat
    index: pa.Table
    """One row per clip: the shard columns without the media, plus `shard` (path below `uri`), `row` in it, and `place`,
    which `read_media` takes."""

    def split(self, name: str) -> pa.Table:
        """The index rows of one split, in the order of the shards; an empty split is a `UserError`."""
        table = self.index.filter(pc.equal(self.index["split"], name))
        if not table.num_rows:
            raise UserError(f"the dataset at {self.uri} has no clips in split '{name}'; prepare it with such clips")
        return table

    @property
    def quarantined(self) -> pa.Table:
        """The index rows of the clips that cannot be used."""
        return self.index.filter(self.index["num_frames"].is_null())


def source_sizes(manifest: Manifest) -> dict[str, int]:
    """Bytes of each video file; `UserError` if some are missing."""
    uris = list(dict.fromkeys(clip.uri for clip in manifest.clips))
    return dict(zip(uris, file_sizes(uris), strict=True))


def fingerprint(manifest: Manifest, media_format: MediaFormat, sizes: Mapping[str, int] | None = None) -> str:
    """First 16 hex digits of a SHA-256 over label map, clips, sizes of their files, and the format.

    Equal ones share prepared shards; a video that was replaced has another size.

    Args:
        manifest: the clips.
        media_format: how they are stored.
        sizes: `source_sizes(manifest)` if it is known already.

    Raises:
        UserError: a video file is missing.
    """
    digest = hashlib.sha256(manifest.label_map.to_json().encode())
    digest.update(json.dumps(media_format.stored, sort_keys=True).encode())
    sizes = source_sizes(manifest) if sizes is None else sizes
    for clip in manifest.clips:
        row = (clip.clip_id, clip.uri, sizes[clip.uri], clip.labels, clip.split, clip.start_s, clip.stop_s)
        digest.update(repr(row).encode())
    return digest.hexdigest()[:16]


def shard_plan(manifest: Manifest, clips_per_shard: int = CLIPS_PER_SHARD) -> list[ShardPlan]:
    """Which clips go into which shard: consecutive runs of each split, with the clips of one recording together."""
    plans = []
    for split in dict.fromkeys(clip.split for clip in manifest.clips):
        clips = manifest.split(split)
        places = {uri: place for place, uri in enumerate(dict.fromkeys(clip.uri for clip in clips))}
        ordered = tuple(sorted(clips, key=lambda clip: places[clip.uri]))
        for number, first in enumerate(range(0, len(ordered), clips_per_shard)):
            path = f"{split}/shard-{number:05d}.parquet"
            plans.append(ShardPlan(path=path, clips=ordered[first : first + clips_per_shard]))
    return plans


def write_shard(root: str, path: str, clips: Iterable[StoredClip]) -> pa.Table:
    """Write one shard; it appears under its name only when complete.

    Args:
        root: of the dataset.
        path: below the root.
        clips: may be lazy: one clip is in memory at a time.

    Returns:
        The shard's index rows, with `shard`, `row` and `place`. If another job has written it meanwhile, those of that
        one, which stays.

    Raises:
        UserError: no space is left, or the storage cannot be reached.
    """
    storage, base = filesystem(root)
    target = f"{base}/{path}"
    storage.create_dir(target.rsplit("/", 1)[0], recursive=True)
    with (
        written_whole(storage, target, replace=False) as sink,
        pq.ParquetWriter(sink, _SHARD_SCHEMA, **writer_options(_PATHS)) as writer,
    ):
        for clip in clips:
            media = {"video": clip.media.video, "frames": clip.media.frames, "sound": clip.media.sound}
            writer.write_table(pa.Table.from_pylist([_index_row(clip) | media], schema=_SHARD_SCHEMA))
    rows = finished_shard(root, path)
    if rows is None:
        raise UserError(f"shard {path} of {root} vanished while it was written; let nothing else change that folder")
    return rows


def finished_shard(root: str, path: str) -> pa.Table | None:
    """The index rows of a shard that is there already, with `shard`, `row` and `place`; None if it is not.

    Raises:
        UserError: the shard is damaged, or of another format version.
    """

    def read() -> pa.Table | None:
        storage, base = filesystem(root)
        if storage.get_file_info(f"{base}/{path}").type != pafs.FileType.File:
            return None
        remote = not isinstance(storage, pafs.LocalFileSystem)
        with pq.ParquetFile(storage.open_input_file(f"{base}/{path}"), pre_buffer=remote) as file:
            _check_version(file, root, path)
            return _placed(file.read(columns=_INDEX_NAMES), path, file.metadata)

    try:
        return retried(read, what=f"shard {path} of {root}")
    except pa.ArrowInvalid as error:
        raise _damaged(root, path, error) from error


def write_index(
    root: str, manifest: Manifest, media_format: MediaFormat, shards: Sequence[pa.Table], *, digest: str | None = None
) -> ShardedDataset:
    """Write the index and, last of all, `dataset.json`.

    Args:
        root: of the dataset.
        manifest: the clips.
        media_format: how they are stored.
        shards: the index rows of every shard, in order.
        digest: `fingerprint(manifest, media_format)` if it is known already.
    """
    storage, base = filesystem(root)
    index = pa.concat_tables(shards).combine_chunks()
    paths = list(dict.fromkeys(index["shard"].to_pylist()))
    infos = storage.get_file_info([f"{base}/{path}" for path in paths])
    unseen = [path for path, info in zip(paths, infos, strict=True) if info.type != pafs.FileType.File]
    if unseen:
        raise UserError(
            f"{len(unseen)} of {len(paths)} shards, for example {unseen[0]}, were written on other nodes and cannot be "
            f"seen here at {root}; give a folder that all nodes share, or a URI such as s3://bucket/path"
        )
    head = {
        "format_version": FORMAT_VERSION,
        "fingerprint": fingerprint(manifest, media_format) if digest is None else digest,
        "clips": index.num_rows,
        "media": dataclasses.asdict(media_format),
        "label_map": manifest.label_map.to_json(),
        "shards": {path: info.size for path, info in zip(paths, infos, strict=True)},
    }
    with written_whole(storage, f"{base}/index.parquet") as sink:
        pq.write_table(index, sink)
    with written_whole(storage, f"{base}/{DATASET_FILE}") as sink:
        sink.write(json.dumps(head, indent=2).encode())
    return _dataset(root, head, index)


def open_dataset(root: str) -> ShardedDataset | None:
    """The prepared dataset at `root`, or None if there is no complete one.

    Raises:
        UserError: it was written by another format version, one of its own files is damaged, or a shard is missing or
            was cut short.
    """
    return retried(lambda: _open_dataset(root), what=f"the dataset at {root}")


def _open_dataset(root: str) -> ShardedDataset | None:
    storage, base = filesystem(root)
    if storage.get_file_info(f"{base}/{DATASET_FILE}").type != pafs.FileType.File:
        return None
    with storage.open_input_file(f"{base}/{DATASET_FILE}") as source:
        text = source.read()
    try:
        head: dict[str, Any] = json.loads(text)
        if head["format_version"] != FORMAT_VERSION:
            raise UserError(
                f"the dataset at {root} has format version {head['format_version']}, this program reads "
                f"{FORMAT_VERSION}; prepare it again into another folder"
            )
        _check_shards(root, head["shards"])
        with storage.open_input_file(f"{base}/index.parquet") as source:
            index = pq.read_table(source)
        return _dataset(root, head, index)
    except (ValueError, KeyError, TypeError) as error:  # pyarrow's errors about content are ValueErrors
        raise UserError(
            f"{DATASET_FILE} or index.parquet of the dataset at {root} is damaged ({error!r}); remove both, and "
            "prepare the dataset again: its shards are kept"
        ) from error


def _dataset(root: str, head: dict[str, Any], index: pa.Table) -> ShardedDataset:
    if index.num_rows != head["clips"]:
        raise ValueError(f"{index.num_rows} clips in the index instead of {head['clips']}")
    return ShardedDataset(
        uri=root,
        label_map=LabelMap.from_json(head["label_map"], where=f"the label map of the dataset at {root}"),
        fingerprint=head["fingerprint"],
        format=MediaFormat(**head["media"]),
        index=index,
    )


def open_complete(root: str) -> ShardedDataset:
    """The prepared dataset at `root`; `UserError` as `open_dataset`, and if there is no complete one."""
    dataset = open_dataset(root)
    if dataset is None:
        raise UserError(
            f"there is no complete prepared dataset at '{root}'; give the folder or URI that jobs/prepare_data.py "
            "wrote to, or run the same preparation again to complete it"
        )
    return dataset


def _check_shards(root: str, sizes: dict[str, int]) -> None:
    """Raise `UserError` unless every shard is there with the size that it was written with."""
    storage, base = filesystem(root)
    infos = storage.get_file_info(pafs.FileSelector(base, recursive=True))
    found = {info.path.removeprefix(f"{base}/"): info.size for info in infos if info.type == pafs.FileType.File}
    wrong = [path for path, size in sizes.items() if found.get(path) != size]
    if wrong:
        state = "missing" if wrong[0] not in found else f"{found[wrong[0]]} bytes long instead of {sizes[wrong[0]]}"
        raise UserError(
            f"{len(wrong)} of {len(sizes)} shards of the dataset at {root} are not as they were written: {wrong[0]} is "
            f"{state}; remove these shards and {DATASET_FILE}, and prepare the dataset again: the others are kept"
        )


def read_media(
    root: str, shard: str, place: Sequence[int], columns: Sequence[str] = ("video", "frames", "sound")
) -> Media:
    """The media of a clip, by one read of a range of bytes; several threads may read at once.

    A fault of the storage is waited for, see `retried`.

    Args:
        root: of the dataset.
        shard: of the clip's index row.
        place: of the clip's index row.
        columns: which media are needed.

    Raises:
        UserError: the shard is damaged, is not the one that the index was made of, or cannot be read.
    """
    pairs = zip(_MEDIA_PATHS, zip(place[::2], place[1::2], strict=True), strict=True)
    spans = {name: (at, size) for name, (at, size) in pairs if name in columns and size}
    if not spans:
        return Media()
    first, last = min(at for at, _ in spans.values()), max(at + size for at, size in spans.values())
    data = retried(
        lambda: _open_shard(root, shard).read_at(last - first, first),
        what=f"shard {shard} of {root}",
        before_retry=_forget_connections,
    )
    try:
        if len(data) != last - first:
            raise ValueError(f"it ends before byte {last}")
        found = {name: split_values(data[at - first : at - first + size]) for name, (at, size) in spans.items()}
    except ValueError as error:
        raise _damaged(root, shard, error) from error
    return Media(
        video=found["video"][0] if "video" in found else None,
        frames=tuple(found["frames"]) if "frames" in found else None,
        sound=found["sound"][0] if "sound" in found else None,
    )


@functools.lru_cache(maxsize=_OPEN_SHARDS)
def _open_shard(root: str, shard: str) -> pa.NativeFile:
    """An open shard; on S3, opening one costs a request."""
    storage, base = _open_storage(root)
    return storage.open_input_file(f"{base}/{shard}")


@functools.lru_cache(maxsize=8)
def _open_storage(root: str) -> tuple[pafs.FileSystem, str]:
    """`filesystem`, with one set of connections for all shards."""
    return filesystem(root)


def _forget_connections() -> None:
    """A broken connection stays broken in an open file."""
    _open_shard.cache_clear()
    _open_storage.cache_clear()


def _check_version(file: pq.ParquetFile, root: str, shard: str) -> None:
    version = (file.schema_arrow.metadata or {}).get(_VERSION_KEY, b"none").decode()
    if version != str(FORMAT_VERSION):
        raise UserError(
            f"shard {shard} of {root} has format version {version}, this program reads {FORMAT_VERSION}; prepare the "
            "dataset again into another folder"
        )


def _damaged(root: str, shard: str, error: Exception) -> UserError:
    first = str(error).splitlines()[0][:160]
    return UserError(
        f"shard {shard} of {root} is damaged: {first}; remove it and {DATASET_FILE}, and prepare the dataset again: "
        "the other shards are kept"
    )


def _placed(rows: pa.Table, path: str, metadata: pq.FileMetaData) -> pa.Table:
    """The index rows with `shard`, `row` and `place`."""
    rows = rows.replace_schema_metadata(None)
    where = places(metadata, _PATHS, rows["encoded_bytes"].to_pylist())
    return (
        rows.drop_columns("encoded_bytes")
        .append_column("shard", pa.array([path] * rows.num_rows, pa.string()))
        .append_column("row", pa.array(range(rows.num_rows), pa.int64()))
        .append_column("place", pa.array(where, pa.list_(pa.int64())))
    )


def _index_row(stored: StoredClip) -> dict[str, Any]:
    clip, facts, media = stored.clip, stored.facts, stored.media
    known = {} if facts is None else dataclasses.asdict(facts)
    return {
        "clip_id": clip.clip_id,
        "labels": list(clip.labels),
        "split": clip.split,
        "uri": clip.uri,
        "source_start_s": clip.start_s,
        "source_stop_s": clip.stop_s,
        "start_s": stored.start_s,
        "stop_s": stored.stop_s,
        "reason": stored.reason,
        "bytes": media.size,
        "encoded_bytes": [
            encoded_size([] if media.video is None else [media.video]),
            encoded_size(media.frames or ()),
            encoded_size([] if media.sound is None else [media.sound]),
        ],
        **known,
    }
