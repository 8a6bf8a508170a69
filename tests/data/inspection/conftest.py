"""Datasets made of rows that a test states, without preparing videos."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from cast_ray.data.manifest import Clip, Manifest
from cast_ray.data.media import Facts, Media, MediaFormat, StoredClip
from cast_ray.data.shards import ShardedDataset, write_index, write_shard
from cast_ray.labels import LabelMap

FACTS = Facts(
    num_frames=50, fps=25.0, width=340, height=256, video_codec="h264", sound_codec="aac", source="h264 1920x1080"
)


@pytest.fixture(scope="session")
def stored() -> Callable[..., StoredClip]:
    """A clip by id, labels and split; `reason` alone quarantines it, other keywords change its facts."""

    def stored(
        clip_id: str,
        labels: Sequence[int],
        split: str = "train",
        *,
        uri: str = "",
        window: tuple[float | None, float | None] = (None, None),
        media: Media | None = None,
        reason: str = "",
        **facts: Any,
    ) -> StoredClip:
        clip = Clip(
            clip_id=clip_id,
            uri=uri or f"/videos/{clip_id}.mp4",
            labels=tuple(labels),
            split=split,
            start_s=window[0],
            stop_s=window[1],
        )
        if reason and not facts:
            return StoredClip(clip=clip, reason=reason)
        return StoredClip(
            clip=clip,
            media=Media(video=b"x" * 1000) if media is None else media,
            facts=dataclasses.replace(FACTS, **facts),
            start_s=window[0],
            stop_s=window[1],
            reason=reason,
        )

    return stored


@pytest.fixture(scope="session")
def written() -> Callable[..., ShardedDataset]:
    """Writes stored clips as a dataset of one shard for each split."""

    def written(
        root: Path | str, clips: Sequence[StoredClip], names: LabelMap, media_format: MediaFormat | None = None
    ) -> ShardedDataset:
        splits = dict.fromkeys(each.clip.split for each in clips)
        shards = [
            write_shard(str(root), f"{split}/shard-00000.parquet", [each for each in clips if each.clip.split == split])
            for split in splits
        ]
        manifest = Manifest(clips=tuple(each.clip for each in clips), label_map=names)
        return write_index(str(root), manifest, media_format or MediaFormat(), shards, digest="0123456789abcdef")

    return written
