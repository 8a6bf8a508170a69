"""How a stored clip becomes a small file that a browser plays."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cast_ray.data.media import MediaFormat
from cast_ray.data.shards import ShardedDataset, read_media
from cast_ray.report.record import Video

__all__ = ["SMALL_BYTES", "playable", "videos_of"]

MATROSKA = b"\x1a\x45\xdf\xa3"
SMALL_BYTES = 120_000
"""A larger file is written anew, so that a page of two dozen clips stays a few megabytes."""
SMALL_FORMAT = MediaFormat(video="short-gop", sound="none", short_side=176, crf=28, gop=48)
MOST_FRAMES = 64
POSTER_QUALITY = 80


def videos_of(dataset: ShardedDataset, clip_ids: Iterable[str]) -> dict[str, Video]:
    """The clips of the dataset that have one of the ids and can be shown, by id."""
    rows = dataset.index.filter(pc.is_in(dataset.index["clip_id"], value_set=pa.array(list(clip_ids), pa.string())))
    videos = {row["clip_id"]: playable(dataset, row) for row in rows.to_pylist()}
    return {clip_id: video for clip_id, video in videos.items() if video is not None}


def playable(dataset: ShardedDataset, row: dict[str, Any]) -> Video | None:
    """The video of an index row with a poster; None if the clip is quarantined or cannot be decoded any more.

    It is the stored file if that is small and holds nothing but the clip; else `MOST_FRAMES` frames at most, evenly
    spaced over the clip, at the clip's speed.
    """
    from cast_ray.data.decode import UnreadableVideo, frame_window, open_media
    from cast_ray.data.decoders.jpeg import encode_jpeg

    if row["num_frames"] is None:
        return None
    column = "frames" if dataset.format.video == "jpeg" else "video"
    media = read_media(dataset.uri, row["shard"], row["place"], (column,))
    try:
        video = open_media(media, num_frames=row["num_frames"], fps=row["fps"])
        first, count = frame_window(video, row["start_s"], row["stop_s"])
        kept = min(count, MOST_FRAMES)
        frames = video.frames(first + np.arange(kept) * count // kept)
    except UnreadableVideo:
        return None
    poster = encode_jpeg(_shrunk(frames[kept // 2]), POSTER_QUALITY)
    if media.video is not None and len(media.video) <= SMALL_BYTES and count == video.num_frames:
        mime = "video/webm" if media.video.startswith(MATROSKA) else "video/mp4"
        return Video(data=media.video, mime=mime, poster=poster)
    return Video(data=_encoded(frames, video.fps * kept / count), poster=poster)


def _shrunk(frame: Any) -> Any:
    import av

    from cast_ray.data.transcode import shrunk

    return shrunk(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24"), SMALL_FORMAT.short_side)


def _encoded(frames: Any, fps: float) -> bytes:
    import av

    from cast_ray.data.transcode import short_gop

    pictures = (av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24") for frame in frames)
    data, _, _ = short_gop(pictures, fps, SMALL_FORMAT)
    return data
