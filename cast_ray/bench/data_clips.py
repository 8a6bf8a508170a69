"""Which clips the input pipelines are compared on: real videos, made alike, as files and as shards."""

from __future__ import annotations

import dataclasses
import io
import itertools
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cast_ray.data.decode import UnreadableVideo
from cast_ray.data.decoders.container import open_container
from cast_ray.data.ingest import stored_clips
from cast_ray.data.manifest import TRAIN, Clip, Manifest
from cast_ray.data.media import MediaFormat
from cast_ray.data.shards import write_index, write_shard
from cast_ray.errors import UserError
from cast_ray.labels import LABEL, LabelMap

__all__ = ["KINDS", "Inputs", "Kind", "make_inputs", "videos_in"]

WIDTH, HEIGHT = 340, 256
CRF = 23
"""x264's own default, as in the usual resized copies of the datasets."""
JPEG_FRAMES = 45
"""Most JPEG frames that are stored of a clip."""
VIDEO_SUFFIXES = frozenset({".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v"})


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What all clips have in common."""

    seconds: float
    fps: int | None
    """Frames per second; None: those of the source."""


KINDS: Mapping[str, Kind] = {
    "kinetics": Kind(seconds=10.0, fps=None),
    "something": Kind(seconds=3.0, fps=12),
}
"""Clips like those of Kinetics and of Something-Something-V2."""


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """The same clips as files and as shards."""

    files: tuple[str, ...]
    datasets: Mapping[str, str]
    """Where the shards are, by `MediaFormat.video`."""
    described: Mapping[str, Any]
    """Frames and bytes, for the report."""


@dataclass(frozen=True, kw_only=True)
class _Source:
    path: Path
    name: str
    frames: int
    fps: Fraction


def videos_in(folder: Path) -> tuple[Path, ...]:
    """The video files in a folder, in order of their names; none is a `UserError`."""
    found = sorted(folder.iterdir()) if folder.is_dir() else []
    videos = tuple(path for path in found if path.suffix.lower() in VIDEO_SUFFIXES)
    if not videos:
        raise UserError(
            f"--clips is {folder}, where there are no video files ({', '.join(sorted(VIDEO_SUFFIXES))}); give a folder "
            "with some videos of at least 10 s"
        )
    return videos


def make_inputs(videos: Sequence[Path], folder: Path, kind: Kind, clips: int) -> Inputs:
    """Cut, resize and encode the videos alike, and copy them until there are enough clips, all with their own names.

    Videos that cannot be decoded or are too short are left out.

    Raises:
        UserError: all were left out.
    """
    (folder / "files").mkdir(parents=True)
    encoded = (_encode(video, folder / f"{number}.mp4", kind) for number, video in enumerate(videos))
    sources = [source for source in encoded if source is not None]
    if not sources:
        raise UserError(f"none of {len(videos)} videos has {kind.seconds:g} s that can be decoded; give longer ones")
    files = [folder / "files" / f"{number:05d}.mp4" for number in range(clips)]
    for file, source in zip(files, itertools.cycle(sources), strict=False):
        shutil.copyfile(source.path, file)
    named = tuple(Clip(clip_id=file.stem, uri=str(file), labels=(0,), split=TRAIN) for file in files)
    manifest = Manifest(clips=named, label_map=LabelMap({LABEL: ("any",)}))
    datasets: dict[str, str] = {media_format.video: str(folder / media_format.video) for media_format in _formats(kind)}
    stored: dict[str, float] = {
        media_format.video: _write_shards(manifest, datasets[media_format.video], media_format, len(sources))
        for media_format in _formats(kind)
    }
    described = {
        "width": WIDTH,
        "height": HEIGHT,
        "clips": clips,
        "videos": [{"name": each.name, "frames": each.frames, "fps": float(each.fps)} for each in sources],
        "stored_bytes_per_clip": {"file": float(np.mean([file.stat().st_size for file in files])), **stored},
    }
    return Inputs(files=tuple(map(str, files)), datasets=datasets, described=described)


def _formats(kind: Kind) -> tuple[MediaFormat, ...]:
    """The formats of the shards that are compared."""
    most = JPEG_FRAMES / kind.seconds
    return (
        MediaFormat(video="original", sound="none"),
        MediaFormat(video="short-gop", sound="none"),
        MediaFormat(video="jpeg", sound="none", frame_rate=None if kind.fps and kind.fps <= most else most),
    )


def _write_shards(manifest: Manifest, root: str, media_format: MediaFormat, sources: int) -> float:
    """Write one shard, for which each different video is converted once; returns the mean bytes of a clip."""
    made = list(stored_clips(manifest.clips[:sources], media_format))
    clips = [
        dataclasses.replace(stored, clip=clip)
        for clip, stored in zip(manifest.clips, itertools.cycle(made), strict=False)
    ]
    shard = write_shard(root, f"{TRAIN}/shard-00000.parquet", clips)
    write_index(root, manifest, media_format, [shard])
    return float(np.mean(shard["bytes"].to_pylist()))


def _encode(video: Path, path: Path, kind: Kind) -> _Source | None:
    """Write the beginning of a video as H.264 without sound; None if it is damaged or too short."""
    import av

    try:
        with open_container(io.BytesIO(video.read_bytes())) as container:
            stream = container.streams.best("video")
            rate = None if stream is None else stream.average_rate
            frames = [] if rate is None else _decoded(container, stream, round(kind.seconds * rate))
    except (av.FFmpegError, UnreadableVideo):
        return None
    if rate is None or len(frames) < round(kind.seconds * rate):
        return None
    fps = rate if kind.fps is None else Fraction(kind.fps)
    chosen = [frames[int(index * rate / fps)] for index in range(int(kind.seconds * fps))]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.options = {"crf": str(CRF)}
        for pixels in chosen:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return _Source(path=path, name=video.name, frames=len(chosen), fps=fps)


def _decoded(container: Any, stream: Any, count: int) -> list[NDArray[np.uint8]]:
    frames = itertools.islice(container.decode(stream), count)
    return [frame.reformat(width=WIDTH, height=HEIGHT, format="rgb24").to_ndarray() for frame in frames]
