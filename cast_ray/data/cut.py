"""How a segment is taken out of a long recording: its packets, copied without decoding, and little else is read.

The piece begins at the key frame at or before the segment and ends where every frame of the segment can be decoded.
Which frames belong to a segment follows from the times that the container states: with a constant frame rate they are
those of `cast_ray.data.decode.frame_window`; where the rate varies, times count and not indices.
"""

from __future__ import annotations

import bisect
import io
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cast_ray.data.decode import UnreadableVideo
from cast_ray.data.decoders.container import open_container
from cast_ray.data.decoders.listing import Listing, list_packets
from cast_ray.data.media import check_size

__all__ = ["Piece", "cut", "without_sound"]

PREROLL_S = 0.25
"""Seconds of sound before the piece's first frame: its decoder and low-pass filter come into step (Opus: 80 ms)."""
TAIL_S = 0.1
"""Seconds of sound after the segment, for the low-pass filter."""
LAG_S = 5.0
"""Seconds by which sound may lie behind its video in the file; longer is not waited for."""
BACK_S = (0.0, 10.0, math.inf)
"""Seconds before the segment at which the file is entered, one after the other until there is a key frame."""
CONTAINERS = ("mp4", "matroska")
"""Of the piece: the first that holds the codecs."""


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A segment in a file of its own, with some frames before and after it."""

    data: bytes
    first: int
    """The segment's first frame in the piece."""
    num_frames: int
    """Of the segment."""
    fps: float
    """Of the segment, on average."""
    start_s: float | None
    """The segment in the piece: `frame_window` finds its frames there."""
    stop_s: float | None
    sound_start_s: float | None = None
    """The same in true seconds, for `read_sound`; they differ where the frame rate varies."""
    sound_stop_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class _Segment:
    """What is asked for, in ticks of the video stream."""

    start_s: float | None
    stop_s: float | None
    zero: int
    """Time of the first frame that a player shows."""
    lower: float
    """Frames from here on ..."""
    upper: float
    """... and before this belong to the segment."""
    tick_s: float


def cut(container: Any, start_s: float | None, stop_s: float | None, *, sound: bool) -> Piece:
    """Copy the part from `start_s` to `stop_s` seconds (None: beginning, end) of an opened `av` container.

    The sound in the piece is that of the recording to one sample at 16 kHz (resampling begins elsewhere) and to the
    rounding of the container's times (Matroska: 1 ms). Where the frame rate varies, `start_s` and `stop_s` of the piece
    are not its seconds but lead to its frames; sound that is read by them is off by the difference.

    Args:
        container: of a file that can be seeked in.
        start_s: first second.
        stop_s: last second.
        sound: copy the sound that belongs to the video too.

    Raises:
        UnreadableVideo: no frame lies in that part, or it cannot be cut out exactly.
        av.FFmpegError: the file is damaged.
    """
    video = container.streams.best("video")
    if video is None:
        raise UnreadableVideo("file has no video stream")
    audio = container.streams.best("audio", related=video) if sound else None
    segment = _segment(video, start_s, stop_s)
    packets, heard, rate = _read(container, video, audio, segment)
    times = sorted(packet.pts for packet in packets)
    first = bisect.bisect_left(times, segment.lower)
    num_frames = bisect.bisect_left(times, segment.upper) - first
    data, fps = _mux(packets, heard)
    origin_s = (times[0] - segment.zero) * segment.tick_s
    begin_s = None if start_s is None and first == 0 else (start_s or 0.0) - origin_s
    end_s = None if stop_s is None else stop_s - origin_s
    return Piece(
        data=data,
        first=first,
        num_frames=num_frames,
        fps=rate,
        start_s=None if begin_s is None else _second(begin_s, first, fps),
        stop_s=None if end_s is None else _second(end_s, first + num_frames, fps),
        sound_start_s=None if begin_s is None else max(begin_s, 0.0),
        sound_stop_s=end_s,
    )


def _rate(video: Any, packets: Sequence[Any], segment: _Segment) -> float:
    """Frames per second of the segment: what is stated, unless its frames last half a frame more or less than that."""
    wanted = [packet for packet in packets if segment.lower <= packet.pts < segment.upper]
    first, last = min(packet.pts for packet in wanted), max(wanted, key=lambda packet: packet.pts)
    stated = float(video.average_rate)
    end = min((packet.pts for packet in packets if packet.pts >= segment.upper), default=None)
    if end is None:
        end = last.pts + (last.duration or 1 / (stated * segment.tick_s))
    seconds = (end - first) * segment.tick_s
    return stated if abs(seconds * stated - len(wanted)) < 0.5 else len(wanted) / seconds


def without_sound(data: bytes) -> bytes:
    """A piece's video alone; frames and seconds stay where they are."""
    with open_container(io.BytesIO(data)) as container:
        packets = [packet for packet in container.demux(container.streams.best("video")) if packet.size]
        return _mux(packets, [])[0]


def _segment(video: Any, start_s: float | None, stop_s: float | None) -> _Segment:
    if not video.average_rate:
        raise UnreadableVideo("container states no frame rate, so seconds cannot be turned into frames")
    if video.codec_context.has_b_frames and "avi" in video.container.format.name:
        raise UnreadableVideo("AVI states no times for this codec's frames, so a segment cannot be cut out")
    fps, tick_s, zero = float(video.average_rate), float(video.time_base), video.start_time or 0
    # As in `frame_window`, and half a frame early: a container's rounded times fall on the right side.
    first = max(round((start_s or 0.0) * fps), 0)
    stop = math.inf if stop_s is None else max(round(stop_s * fps), first)
    return _Segment(
        start_s=start_s,
        stop_s=stop_s,
        zero=zero,
        lower=zero + (first - 0.5) / (fps * tick_s),
        upper=zero + (stop - 0.5) / (fps * tick_s),
        tick_s=tick_s,
    )


def _second(second: float, frame: int, fps: float) -> float:
    """The second nearest to `second` that `frame_window` takes for `frame`, clear of where rounding may go wrong."""
    return min(max(second, (frame - 0.49999) / fps, 0.0), (frame + 0.49999) / fps)


def _read(container: Any, video: Any, audio: Any, segment: _Segment) -> tuple[list[Any], list[Any], float]:
    """The video packets of the piece, in decoding order, the sound packets that go with them, and `_rate`."""
    for back_s in BACK_S:
        _enter(container, video, segment, back_s)
        packets, heard = _collect(container, video, audio, segment)
        if packets and packets[0].is_keyframe and packets[0].pts <= max(segment.lower, segment.zero):
            break
    wanted = [packet.pts for packet in packets if segment.lower <= packet.pts < segment.upper]
    if not wanted:
        raise UnreadableVideo(_nothing(packets, segment, 1 / float(video.average_rate)))
    keys = [index for index, packet in enumerate(packets) if packet.is_keyframe and packet.pts <= min(wanted)]
    if not keys:
        raise UnreadableVideo(f"no key frame before {segment.start_s} s, so the segment cannot be cut out")
    stop = _end(packets, segment.upper) or len(packets)
    # Frames after the key frame in the file but shown before it need frames that are not in the piece.
    kept = [packet for packet in packets[keys[-1] : stop] if packet.pts >= packets[keys[-1]].pts]
    begin_s = packets[keys[-1]].pts * segment.tick_s - PREROLL_S
    heard = [packet for packet in heard if (packet.pts + packet.duration) * float(packet.time_base) > begin_s]
    # Sound whose times go back cannot be written, and is no reason to lose the frames.
    latest = itertools.accumulate((packet.pts for packet in heard), max, initial=-math.inf)
    heard = [packet for packet, before in zip(heard, latest, strict=False) if packet.pts > before]
    return kept, heard, _rate(video, packets, segment)


def _nothing(packets: Sequence[Any], segment: _Segment, frame_s: float) -> str:
    """Why no frame lies in the segment."""
    where = f"no frame between {segment.start_s} s and {segment.stop_s} s"
    times = [packet.pts - segment.zero for packet in packets]
    later = [time for time in times if time >= segment.upper - segment.zero]
    if later:
        return f"{where}: the next one is at {min(later) * segment.tick_s:.2f} s"
    return f"{where}: the video ends at {max(times, default=0) * segment.tick_s + frame_s:.2f} s"


def _enter(container: Any, video: Any, segment: _Segment, back_s: float) -> None:
    """Go to a place `back_s` before the segment, and a little more: sound from before the key frame is wanted too."""
    import av

    # MPEG transport streams find their beginning only from before it, others know no such time.
    begin = segment.zero - 1 / segment.tick_s
    try:
        container.seek(math.floor(max(segment.lower - (back_s + PREROLL_S) / segment.tick_s, begin)), stream=video)
    except av.FFmpegError:
        container.seek(segment.zero, stream=video)


def _collect(container: Any, video: Any, audio: Any, segment: _Segment) -> tuple[list[Any], list[Any]]:
    """Packets from here on, from the last key frame before the segment to some way behind it."""
    packets: list[Any] = []
    heard: list[Any] = []
    end_s = segment.upper * segment.tick_s + TAIL_S
    sound_complete, video_complete, size = audio is None, False, 0
    for packet in container.demux([stream for stream in (video, audio) if stream is not None]):
        if not packet.size:
            continue
        if packet.pts is None:
            raise UnreadableVideo("container states no times for its frames, so a segment cannot be cut out")
        second = float(packet.pts * packet.time_base)
        if packet.stream is not video:
            sound_complete = sound_complete or second >= end_s
            heard += [] if second >= end_s else [packet]
            continue
        if packet.is_keyframe and packet.pts <= segment.lower:
            packets.clear()
            size = 0
        packets.append(packet)
        size += packet.size
        check_size("segment", size)
        video_complete = video_complete or _is_complete(packets, segment.upper)
        if video_complete and (sound_complete or second > end_s + LAG_S):
            break
    return packets, heard


def _is_complete(packets: Sequence[Any], upper: float) -> bool:
    """Whether all frames before `upper` have been read, and the one after them: it ends the last one."""
    if _end(packets, upper) is None:
        return False
    return min((packet.pts for packet in packets if packet.pts >= upper), default=math.inf) <= _future(packets)


def _end(packets: Sequence[Any], upper: float) -> int | None:
    """How many packets from the first on give all frames before `upper`, and no gap in time; None: more are needed.

    Without gaps the piece's mean frame rate is the recording's. No frame is shown before it is decoded, so those that
    are still to come are shown at the last decoding time or later.
    """
    future = _future(packets)
    if future < upper:
        return None
    times = [packet.pts for packet in packets]
    least = max((index for index, time in enumerate(times) if time < upper), default=-1) + 1
    shown_before = list(itertools.accumulate(times, max))
    shown_after = list(itertools.accumulate([future, *times[:0:-1]], min))[::-1]
    closed = (index + 1 for index in range(max(least - 1, 0), len(times)) if shown_before[index] < shown_after[index])
    return next(closed, None)


def _future(packets: Sequence[Any]) -> int:
    """Frames still to be read are shown at this time or later."""
    return int(packets[-1].pts if packets[-1].dts is None else packets[-1].dts)


def _mux(packets: Sequence[Any], heard: Sequence[Any]) -> tuple[bytes, float]:
    """A file with these packets, and the frame rate that it states."""
    import av

    _place(packets, heard)
    tracks = [(each[0].stream, each) for each in (packets, heard) if each]
    reason = "its frames do not all come back"
    for name in CONTAINERS:
        target = io.BytesIO()
        try:
            with av.open(target, "w", format=name) as container:
                streams = [container.add_stream_from_template(source, opaque=True) for source, _ in tracks]
                for stream, (_, track) in zip(streams, tracks, strict=True):
                    for packet in track:
                        packet.stream = stream
                for packet in sorted([*packets, *heard], key=lambda packet: packet.dts * packet.time_base):
                    container.mux(packet)
            listing = list_packets(target.getvalue())
        except (av.FFmpegError, ValueError) as error:
            reason = str(error)
            continue
        if listing.shown == len(packets):
            _check_begin(listing)
            return target.getvalue(), listing.fps
    raise UnreadableVideo(f"the segment cannot be copied: {reason}")


def _place(packets: Sequence[Any], heard: Sequence[Any]) -> None:
    """Times that count from the piece's first frame, and decoding times without the gaps of packets left out."""
    times = sorted(packet.pts for packet in packets)
    delay = max(time - packet.pts for time, packet in zip(times, packets, strict=True))
    origin, origin_s = times[0], times[0] * packets[0].time_base
    for time, packet in zip(times, packets, strict=True):
        packet.pts, packet.dts = packet.pts - origin, time - delay - origin
    for packet in heard:
        packet.pts -= round(origin_s / packet.time_base)
        packet.dts = packet.pts


def _check_begin(listing: Listing) -> None:
    """Raise `UnreadableVideo` unless the first picture needs no other; with periodic intra refresh none is such."""
    from av.video.frame import PictureType

    listing.codec_context.thread_count = 1
    pictures = (picture for packet in (*listing.packets, None) for picture in listing.codec_context.decode(packet))
    if next(pictures).pict_type != PictureType.I:
        raise UnreadableVideo("video has no true key frames (intra refresh), so a segment cannot be cut out")
