"""How encoded video becomes frames: bytes in, uint8 RGB frames out, and one exception for everything that fails.

decord decodes. PyAV looks at the container first, for three reasons: it reports damage in words where decord prints
the file's bytes to the terminal; it finds files that are no video without that noise; and it knows which frames the
container hides. Clips cut without re-encoding keep the frames before the cut and hide them with an edit list; decord
0.6.0 counts hidden frames, returns wrong ones, and may spin for ever (dmlc/decord issues 373 and 375). Such files are
decoded with PyAV, which gives the same pixels more slowly.
"""

from __future__ import annotations

import functools
import io
import os
import queue
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["Unreadable", "UnreadableVideo", "Video", "frame_window", "guarded", "open_video"]

Frames = NDArray[np.uint8]
"""RGB frames, [T, H, W, 3], upright (a rotation tag is applied)."""

Result = TypeVar("Result")

SUBSTITUTED_FRAMES = 2
"""Frames per video that decord may replace by the one before, where a container lists more frames than it has."""


class Unreadable(Exception):  # noqa: N818 - a verdict on a file, not a fault of the program
    """A file cannot be decoded; `reason` is one short line for the list of skipped clips."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class UnreadableVideo(Unreadable):
    """The video cannot be decoded."""


class Video:
    """An opened video. Made by `open_video`; not safe for use by several threads.

    Attributes:
        num_frames: frames that a player would show.
        fps: average frames per second, 0.0 where the container does not say.
    """

    def __init__(
        self, *, num_frames: int, fps: float, read: Callable[[list[int]], Frames], time_limit_s: float
    ) -> None:
        self.num_frames = num_frames
        self.fps = fps
        self._read = read
        self._time_limit_s = time_limit_s

    def frames(self, indices: Sequence[int] | NDArray[np.int64]) -> Frames:
        """The frames at `indices` [T], in that order; an index may be repeated and is then decoded once.

        Raises:
            UnreadableVideo: the frames cannot be decoded, or not within the time limit.
            IndexError: an index is outside the video.
        """
        unique, inverse = np.unique(np.asarray(indices, dtype=np.int64), return_inverse=True)
        if unique.size == 0 or unique[0] < 0 or unique[-1] >= self.num_frames:
            raise IndexError(f"frame indices {unique.tolist()} of a video with {self.num_frames} frames")
        decoded = guarded(lambda: self._read(unique.tolist()), self._time_limit_s)
        return decoded[inverse]


def open_video(data: bytes, *, time_limit_s: float = 60.0) -> Video:
    """Open an encoded video (any container and codec that FFmpeg reads); where there are several, its best stream.

    Args:
        data: the whole file.
        time_limit_s: seconds after which opening, or one call of `Video.frames`, is given up.

    Raises:
        UnreadableVideo: with the reason.
    """
    if not data:
        raise UnreadableVideo("file is empty")
    listing = guarded(lambda: _list_frames(data), time_limit_s)
    if listing.shown == 0:
        raise UnreadableVideo("video has no frames")
    if listing.hidden:
        return Video(
            num_frames=listing.shown,
            fps=listing.fps,
            read=functools.partial(_read_in_order, data),
            time_limit_s=time_limit_s,
        )
    reader = guarded(lambda: _open_decord(data), time_limit_s)
    return Video(
        num_frames=len(reader),
        fps=listing.fps,
        read=lambda indices: reader.get_batch(indices).asnumpy(),
        time_limit_s=time_limit_s,
    )


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


@dataclass(frozen=True, kw_only=True)
class _Listing:
    shown: int
    hidden: int
    fps: float


def _list_frames(data: bytes) -> _Listing:
    import av

    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.best("video")
        if stream is None:
            raise UnreadableVideo("file has no video stream")
        packets = [packet.is_discard for packet in container.demux(stream) if packet.size]
        rate = stream.average_rate
        return _Listing(shown=packets.count(False), hidden=packets.count(True), fps=float(rate) if rate else 0.0)


def _read_in_order(data: bytes, indices: list[int]) -> Frames:
    import av

    wanted = set(indices)
    picked = []
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.best("video")
        stream.codec_context.thread_count = 1
        for position, frame in enumerate(container.decode(stream)):
            if position in wanted:
                picked.append(np.rot90(frame.to_ndarray(format="rgb24"), k=round(frame.rotation / 90)))
            if len(picked) == len(wanted):
                return np.stack(picked)
    raise UnreadableVideo(f"only {len(picked)} of {len(wanted)} frames could be decoded")


def _open_decord(data: bytes) -> Any:
    decord = _import_decord()
    return decord.VideoReader(io.BytesIO(data), ctx=decord.cpu(0), num_threads=1, fault_tol=SUBSTITUTED_FRAMES)


@functools.cache
def _import_decord() -> Any:
    # Read once, when the library is loaded. The retries are polls, one or more per packet, so that the default of
    # 10240 fails on long intact videos; the warning would go to the terminal, `fault_tol` already covers the case.
    os.environ.setdefault("DECORD_EOF_RETRY_MAX", "1000000")
    os.environ.setdefault("DECORD_DUPLICATE_WARNING_THRESHOLD", "1.0")
    import decord

    decord.logging.set_level(decord.logging.QUIET)
    return decord


def guarded(work: Callable[[], Result], time_limit_s: float, verdict: type[Unreadable] = UnreadableVideo) -> Result:
    """Run `work` in a thread of its own: its failures, and its not coming to an end, become a `verdict`.

    A native loop cannot be interrupted: after a time-out its thread goes on until the process ends.
    """
    outcome: queue.SimpleQueue[Result | Exception] = queue.SimpleQueue()

    def run() -> None:
        try:
            outcome.put(work())
        except Exception as error:
            outcome.put(error)

    threading.Thread(target=run, name="decode", daemon=True).start()
    try:
        result = outcome.get(timeout=time_limit_s)
    except queue.Empty:
        raise verdict(f"decoding did not finish within {time_limit_s:g} s") from None
    if isinstance(result, verdict):
        raise result
    if isinstance(result, Exception):
        raise verdict(_short_reason(result)) from result
    return result


def _short_reason(error: Exception) -> str:
    """The first line of the message, 160 characters at most, without error numbers and decord's source locations."""
    text = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
    return re.sub(r"\[\d\d:\d\d:\d\d\] \S+: |Check failed: .* vs\. \S+\) ", "", text.splitlines()[0])[:160]
