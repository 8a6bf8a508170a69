"""How a clip is written anew for fast reading: H.264 with short groups of pictures, JPEG frames, FLAC.

Frames are decoded, shrunk and encoded one after the other; no more than a few are in memory, however long the clip.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from cast_ray.data.decode import UnreadableVideo
from cast_ray.data.decoders.jpeg import encode_jpeg
from cast_ray.data.decoders.listing import Listing
from cast_ray.data.decoders.video import Frames
from cast_ray.data.media import MediaFormat, check_size
from cast_ray.data.sound import SAMPLE_RATE, Samples

__all__ = ["decoded", "encode_flac", "jpegs", "kept_frames", "short_gop", "shrunk", "stored_size", "upright_size"]

LOST_FRAMES = 2
"""Frames per clip that may be listed and not come out of the decoder; the one before stands for them."""
DAMAGED_FRAMES = 2
"""Frames per clip that FFmpeg may mark as damaged. So few, because it marks the frames whose own data are damaged and
not those that are predicted from them: every one may stand for the rest of its group."""
FALLBACK_RATE = Fraction(25)
"""Frames per second written where the source does not say; nothing reads it."""
SAMPLES_PER_FRAME = 4096


def decoded(listing: Listing, first: int, num_frames: int) -> Iterator[Any]:
    """`num_frames` frames as `av.VideoFrame`s, from the shown frame `first` on, in order of presentation.

    Raises:
        UnreadableVideo: frames are missing, or (after the last one) damaged.
        av.FFmpegError: the stream is damaged.
    """
    shown = [packet.pts for packet in listing.packets if not packet.is_discard]
    places = {time: place for place, time in enumerate(sorted(shown))} if listing.times_known else {}
    position, lost, damaged, earlier = first, 0, 0, None
    for count, frame in enumerate(_all_frames(listing)):
        place = min(places.get(frame.pts, count), first + num_frames)
        while position < place:
            lost += 1
            if lost > LOST_FRAMES:
                raise UnreadableVideo(f"frame {position} of {len(shown)} and others cannot be decoded")
            yield frame if earlier is None else earlier
            position += 1
        if place == position < first + num_frames:
            yield frame
            damaged += frame.is_corrupt
            position += 1
        if position == first + num_frames:
            break
        earlier = frame
    missing = first + num_frames - position
    if missing and (earlier is None or lost + missing > LOST_FRAMES):
        raise UnreadableVideo(f"only {position - first} of {num_frames} frames could be decoded")
    for _ in range(missing):
        yield earlier
    if damaged > DAMAGED_FRAMES:
        raise UnreadableVideo(f"{damaged} of {num_frames} frames are damaged")


def _all_frames(listing: Listing) -> Iterator[Any]:
    context = listing.codec_context
    context.thread_count = 1
    for packet in (*listing.packets, None):
        yield from context.decode(packet)


def upright_size(frame: Any) -> tuple[int, int]:
    """Width and height of a frame as shown."""
    return (frame.height, frame.width) if _quarters(frame) % 2 else (frame.width, frame.height)


def stored_size(width: int, height: int, short_side: int) -> tuple[int, int]:
    """Width and height with the shorter side at most `short_side`; even, which H.264's halved colour planes need."""
    scale = min(1.0, short_side / min(width, height))
    return max(2, round(width * scale / 2) * 2), max(2, round(height * scale / 2) * 2)


def short_gop(frames: Iterator[Any], fps: float, stored: MediaFormat) -> tuple[bytes, int, int]:
    """An mp4 file with these frames at a constant rate, and its width and height."""
    import av

    rate = Fraction(fps).limit_denominator(1001) if fps > 0 else FALLBACK_RATE
    # Without CABAC and deblocking frames decode 16 to 37 % faster, see docs/benchmarks/storage.md.
    options = {
        "preset": "veryfast",
        "tune": "fastdecode",
        "crf": str(stored.crf),
        "g": str(stored.gop),
        "keyint_min": str(stored.gop),
        "sc_threshold": "0",
        "bf": "0",
        "flags": "+cgop",
        "threads": "1",
    }
    target = io.BytesIO()
    stream: Any = None
    with av.open(target, "w", format="mp4") as container:
        for index, frame in enumerate(frames):
            if stream is None:
                width, height = stored_size(*upright_size(frame), stored.short_side)
                stream = container.add_stream("libx264", rate=rate, options=options)
                stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            picture = _upright_planes(frame, width, height)
            if index == 0:
                # What is not converted must be named, or decoders would take it for something else.
                for name in ("color_range", "colorspace", "color_primaries", "color_trc"):
                    setattr(stream.codec_context, name, getattr(picture, name))
            picture.pts, picture.time_base = index, 1 / rate
            picture.pict_type = 0  # else the source's choice of key frames is copied
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return target.getvalue(), width, height


def jpegs(
    frames: Iterator[Any], num_frames: int, fps: float, stored: MediaFormat
) -> tuple[tuple[bytes, ...], int, int]:
    """JPEG files of the frames that are kept, all of the first one's size, and their width and height.

    Raises:
        UnreadableVideo: a rate is asked for, and the source's is unknown; or they are too many bytes for a shard.
    """
    kept, width, height, size = num_frames, 0, 0, 0
    if stored.frame_rate is not None:
        if fps <= 0:
            raise UnreadableVideo("container states no frame rate, so its frames cannot be thinned out")
        kept = min(max(round(num_frames * stored.frame_rate / fps), 1), num_frames)
    wanted = set(kept_frames(num_frames, kept))
    files: list[bytes] = []
    for index, frame in enumerate(frames):
        if index in wanted:
            pixels = shrunk(frame, stored.short_side)
            if not files:
                height, width = pixels.shape[:2]
            elif pixels.shape[:2] != (height, width):
                pixels = _upright_pixels(_resized(frame, width, height), frame)
            files.append(encode_jpeg(pixels, stored.quality))
            size += len(files[-1])
            check_size("the sum of its JPEG frames", size)
    return tuple(files), width, height


def kept_frames(num_frames: int, kept: int) -> list[int]:
    """Which of N frames K are kept: for each stored frame the first that `open_jpegs` maps to it, ceil(j N / K)."""
    return [-(-place * num_frames // kept) for place in range(kept)]


def shrunk(frame: Any, short_side: int) -> Frames:
    """An upright RGB frame [H, W, 3] with the shorter side at most `short_side`; as decoders give it if it is small."""
    size = upright_size(frame)
    picture = frame if min(size) <= short_side else _resized(frame, *stored_size(*size, short_side))
    return _upright_pixels(picture, frame)


def encode_flac(sound: Samples) -> bytes:
    """A FLAC file with the samples of one channel at `SAMPLE_RATE`."""
    import av

    target = io.BytesIO()
    with av.open(target, "w", format="flac") as container:
        stream = container.add_stream("flac", rate=SAMPLE_RATE, layout="mono")
        for start in range(0, len(sound), SAMPLES_PER_FRAME):
            frame = av.AudioFrame.from_ndarray(sound[None, start : start + SAMPLES_PER_FRAME], "s16", "mono")
            frame.sample_rate, frame.pts = SAMPLE_RATE, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return target.getvalue()


def _quarters(frame: Any) -> int:
    """Quarter turns, counter-clockwise, that bring a frame upright."""
    return round(frame.rotation / 90) % 4


def _upright_pixels(picture: Any, frame: Any) -> Frames:
    """`picture`, a copy of `frame` at perhaps another size, as RGB."""
    return np.rot90(picture.to_ndarray(format="rgb24"), k=_quarters(frame))


def _resized(frame: Any, width: int, height: int) -> Any:
    """The frame in YUV 4:2:0 at a size that is given upright."""
    from av.video.reformatter import Interpolation

    if _quarters(frame) % 2:
        width, height = height, width
    # swscale widens the bicubic kernel when it shrinks, which is Pillow's antialiased bicubic: 46.8 dB apart on a zone
    # plate of 1080p -> 256, in 1.2 ms against 13 ms. Its area filter lets 2.4 times as much aliasing through. Accurate
    # rounding leaves no shift in brightness.
    method = int(Interpolation.BICUBIC) | int(Interpolation.ACCURATE_RND)
    return frame.reformat(width, height, "yuv420p", interpolation=method)


def _upright_planes(frame: Any, width: int, height: int) -> Any:
    import av

    picture = _resized(frame, width, height)
    if not _quarters(frame):
        return picture
    planes = picture.to_ndarray()
    luma, chroma = planes[: picture.height], planes[picture.height :].reshape(2, picture.height // 2, -1)
    turned = [np.rot90(plane, k=_quarters(frame)).reshape(-1) for plane in (luma, *chroma)]
    upright = av.VideoFrame.from_ndarray(np.concatenate(turned).reshape(-1, width), format="yuv420p")
    for name in ("color_range", "colorspace", "color_primaries", "color_trc"):
        setattr(upright, name, getattr(picture, name))
    return upright
