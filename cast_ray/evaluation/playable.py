"""A stored clip as a file that a browser plays."""

from __future__ import annotations

from typing import Any

from cast_ray.data.media import Media, MediaFormat
from cast_ray.data.shards import ShardedDataset, read_media
from cast_ray.evaluation.report import Video

__all__ = ["playable"]

MATROSKA = b"\x1a\x45\xdf\xa3"


def playable(dataset: ShardedDataset, row: dict[str, Any]) -> Video | None:
    """The video of an index row as stored; made of its frames if it is stored as JPEG; None if it is quarantined."""
    if row["num_frames"] is None:
        return None
    column = "frames" if dataset.format.video == "jpeg" else "video"
    media = read_media(dataset.uri, row["shard"], row["place"], (column,))
    data = media.video or _encoded(media, row)
    return Video(data=data, mime="video/webm" if data.startswith(MATROSKA) else "video/mp4")


def _encoded(media: Media, row: dict[str, Any]) -> bytes:
    import av

    from cast_ray.data.decode import open_media
    from cast_ray.data.transcode import short_gop

    frames = media.frames or ()
    video = open_media(media, num_frames=len(frames), fps=0.0)
    pictures = (
        av.VideoFrame.from_ndarray(video.frames([index])[0], format="rgb24") for index in range(video.num_frames)
    )
    data, _, _ = short_gop(pictures, row["fps"] * len(frames) / row["num_frames"], MediaFormat())
    return data
