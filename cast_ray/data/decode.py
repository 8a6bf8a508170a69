"""How encoded video becomes frames: bytes in, uint8 RGB frames out, and one exception for everything that fails.

The back ends of `cast_ray.data.decoders` give the same pixels where `Listing.plain` lets them decode, but for the few
kinds of files in docs/benchmarks/decoding.md. PyAV looks at the container first, whichever of them
decodes: it reports damage in words where decord prints the file's bytes to the terminal, it finds files that are no
video without that noise, and it knows which frames the container hides. Clips cut without re-encoding keep the frames
before the cut and hide them with an edit list; decord cannot read such files, and PyAV decodes them instead.
"""

from __future__ import annotations

import functools
import importlib
from typing import Literal

from cast_ray.data.decoders.decord import import_decord, open_decord
from cast_ray.data.decoders.guard import Unreadable, UnreadableVideo, guarded
from cast_ray.data.decoders.jpeg import open_jpegs
from cast_ray.data.decoders.listing import list_packets
from cast_ray.data.decoders.pyav import open_pyav
from cast_ray.data.decoders.torchcodec import open_torchcodec
from cast_ray.data.decoders.video import Source, Video
from cast_ray.data.media import Media, MediaFormat
from cast_ray.errors import UserError

__all__ = [
    "Decoder",
    "Unreadable",
    "UnreadableVideo",
    "Video",
    "check_decoder",
    "frame_window",
    "guarded",
    "open_media",
    "open_video",
    "usual_decoder",
]

Decoder = Literal["decord", "pyav", "torchcodec"]
"""A library that decodes encoded video."""


_NEEDS = {
    "decord": "the package decord",
    "pyav": "the package av",
    "torchcodec": "the package torchcodec and FFmpeg's shared libraries (Debian, Ubuntu: apt install ffmpeg)",
}


@functools.cache
def check_decoder(decoder: Decoder) -> None:
    """Load a decoder's library.

    Raises:
        UserError: it cannot be loaded; with what to install.
    """
    try:
        if decoder == "decord":
            import_decord()
        else:
            importlib.import_module({"pyav": "av", "torchcodec": "torchcodec.decoders"}[decoder])
    except (ImportError, OSError, RuntimeError) as error:
        why = str(error).strip().splitlines()[0]
        raise UserError(
            f"data.decoder is {decoder}, which cannot be loaded here: {why}; install {_NEEDS[decoder]} on every "
            f"machine that decodes, or choose another --data.decoder"
        ) from error


def open_video(data: bytes, *, decoder: Decoder = "decord", time_limit_s: float = 60.0) -> Video:
    """Open an encoded video (`decoders.container.ACCEPTED`, any codec that FFmpeg reads); of several streams the best.

    Args:
        data: the whole file.
        decoder: the library that decodes; PyAV takes over from the others where they are not exact (`Listing.plain`).
        time_limit_s: seconds after which opening, or one call of `Video.frames`, is given up.

    Raises:
        UnreadableVideo: with the reason.
        UserError: the decoder cannot be loaded.
    """
    check_decoder(decoder)
    if not data:
        raise UnreadableVideo("file is empty")
    return Video(guarded(lambda: _open(data, decoder), time_limit_s), time_limit_s=time_limit_s)


def usual_decoder(stored: MediaFormat) -> Decoder:
    """What decodes where nothing else is asked for: PyAV needs half of decord's time for short groups of pictures."""
    return "pyav" if stored.video == "short-gop" else "decord"


def open_media(
    media: Media, *, num_frames: int, fps: float, decoder: Decoder = "decord", time_limit_s: float = 60.0
) -> Video:
    """Open what is stored of a clip, as video or as JPEG frames.

    Args:
        media: with `video` or `frames`.
        num_frames: frames of the source, see `open_jpegs`.
        fps: frames per second of the source.
        decoder: as `open_video`.
        time_limit_s: as `open_video`.

    Raises:
        UnreadableVideo: with the reason.
    """
    if media.frames is not None:
        return open_jpegs(media.frames, num_frames=num_frames, fps=fps, time_limit_s=time_limit_s)
    return open_video(media.video or b"", decoder=decoder, time_limit_s=time_limit_s)


def _open(data: bytes, decoder: Decoder) -> Source:
    listing = list_packets(data)
    if decoder == "pyav" or not listing.plain:
        return open_pyav(listing)
    return open_decord(data, listing.fps) if decoder == "decord" else open_torchcodec(data, listing.fps)


def frame_window(video: Video, start_s: float | None, stop_s: float | None) -> tuple[int, int]:
    """First frame and number of frames of the part from `start_s` to `stop_s` seconds (None: beginning, end).

    Raises:
        UnreadableVideo: no frame of the video lies in that part, or the frame rate is needed and unknown.
    """
    if start_s is None and stop_s is None:
        return 0, video.num_frames
    if video.fps <= 0:
        raise UnreadableVideo("container states no frame rate, so seconds cannot be turned into frames")
    first = max(round((start_s or 0.0) * video.fps), 0)
    stop = video.num_frames if stop_s is None else min(round(stop_s * video.fps), video.num_frames)
    if first >= stop:
        duration = video.num_frames / video.fps
        raise UnreadableVideo(f"no frame between {start_s} s and {stop_s} s: the video lasts {duration:.2f} s")
    return first, stop - first
