"""Which clips an analysis looks at: a fair sample of a dataset, named clips of it, or a video file."""

from __future__ import annotations

import difflib
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cast_ray.data.ingest import stored_clips
from cast_ray.data.manifest import VALIDATION, Clip, Manifest
from cast_ray.data.media import MediaFormat
from cast_ray.data.shards import ShardedDataset, shard_plan, write_index, write_shard
from cast_ray.errors import UserError
from cast_ray.labels import LabelMap

__all__ = ["check_labels", "named_clips", "opened_file", "opened_sample", "stratified"]

Integers = NDArray[np.int64]


def stratified(labels: Integers, count: int, rng: np.random.Generator) -> Integers:
    """Numbers of at most `count` of the clips whose labels are [N, F]: every class has its share of the sample.

    Systematic sampling of the clips in the order of their labels, at random among equals, so that the accuracy on the
    sample is an unbiased estimate of the accuracy on all.
    """
    total = len(labels)
    if count >= total:
        return np.arange(total)
    tie_break = rng.permutation(total)
    order = np.lexsort((tie_break, *labels.T[::-1]))
    return np.sort(order[((np.arange(count) + rng.random()) * total / count).astype(np.int64)])


def check_labels(label_map: LabelMap, wanted: LabelMap, *, where: str) -> None:
    """Raise `UserError` unless data and checkpoint have the same classes."""
    if label_map.fingerprint != wanted.fingerprint:
        raise UserError(
            f"{where} has label map {label_map.fingerprint}, the checkpoint was trained with {wanted.fingerprint}; "
            "analyze it on data with its own classes"
        )


def sampled(dataset: ShardedDataset, split: str, count: int, rng: np.random.Generator) -> pa.Table:
    """A stratified sample of the usable index rows of a split."""
    rows = dataset.split(split)
    rows = rows.filter(rows["num_frames"].is_valid())
    if not rows.num_rows:
        raise UserError(f"no clip of split '{split}' of {dataset.uri} can be used; `cast-ray inspect` says why")
    return rows.take(stratified(_labels(rows["labels"].to_pylist()), count, rng))


@contextmanager
def opened_sample(
    source: ShardedDataset | Manifest, split: str, count: int, *, seed: int
) -> Iterator[tuple[ShardedDataset, pa.Table]]:
    """A dataset and the rows of it that make the sample; of a manifest, only these clips are read and stored a while.

    Raises:
        UserError: the split has no clips, or none that can be used.
    """
    rng = np.random.default_rng(seed)
    if isinstance(source, ShardedDataset):
        yield source, sampled(source, split, count, rng)
        return
    clips = source.split(split)
    chosen = stratified(_labels([clip.labels for clip in clips]), count, rng)
    with _stored([clips[row] for row in chosen.tolist()], source.label_map) as dataset:
        yield dataset, sampled(dataset, split, count, rng)


@contextmanager
def opened_file(path: str, label_map: LabelMap) -> Iterator[tuple[ShardedDataset, pa.Table]]:
    """A dataset of one video file, whose labels mean nothing, and its row.

    Raises:
        UserError: the file is missing, or is no video that can be decoded.
    """
    labels = (0,) * len(label_map.fields)
    clip = Clip(clip_id=Path(path).name, uri=path, labels=labels, split=VALIDATION)
    with _stored([clip], label_map) as dataset:
        check_usable(dataset.index)
        yield dataset, dataset.index


def named_clips(dataset: ShardedDataset, clip_ids: Sequence[str]) -> pa.Table:
    """The index rows of clips, in the order of their ids.

    Raises:
        UserError: there is no such clip, with the names that are nearest; or it cannot be used.
    """
    every = dataset.index["clip_id"].to_pylist()
    places = {clip_id: row for row, clip_id in enumerate(every)}
    for clip_id in clip_ids:
        if clip_id not in places:
            near = difflib.get_close_matches(clip_id, every, n=3, cutoff=0.4) or every[:3]
            raise UserError(
                f"no clip is called '{clip_id}' in {dataset.uri}, and it is no video file; near it are "
                f"{', '.join(map(repr, near))}, of {len(every):,} clips"
            )
    rows = dataset.index.take([places[clip_id] for clip_id in clip_ids])
    check_usable(rows)
    return rows


def check_usable(rows: pa.Table) -> None:
    """Raise `UserError` if a clip is quarantined."""
    for row in rows.filter(rows["num_frames"].is_null()).to_pylist()[:1]:
        raise UserError(f"clip '{row['clip_id']}' cannot be used: {row['reason']}; give another")


@contextmanager
def _stored(clips: Sequence[Clip], label_map: LabelMap) -> Iterator[ShardedDataset]:
    """The clips as a prepared dataset in a folder that goes away with the block; no cluster is needed."""
    manifest, media_format = Manifest(clips=tuple(clips), label_map=label_map), MediaFormat()
    with tempfile.TemporaryDirectory(prefix="cast_ray_analyze_") as root:
        shards = [write_shard(root, plan.path, stored_clips(plan.clips, media_format)) for plan in shard_plan(manifest)]
        yield write_index(root, manifest, media_format, shards)


def _labels(labels: Sequence[Any]) -> Integers:
    return np.array(labels, np.int64).reshape(len(labels), -1)
