"""What happens when in a long video: a window slides over it, and each place is predicted as a clip of its own.

Only the window's part of the file is read and decoded, so that memory does not grow with the length of the video.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cast_ray.data.decode import UnreadableVideo, guarded
from cast_ray.data.recording import Recording
from cast_ray.data.sound import HOP, SAMPLE_RATE
from cast_ray.errors import UserError
from cast_ray.inference.parts import Loaded, explained
from cast_ray.inference.recogniser import Recogniser
from cast_ray.inference.timeline import Timeline, Window
from cast_ray.models.spec import AUDIO, VIDEO, NetworkSpec

__all__ = ["slide", "usual_window_s", "video_clock", "window_starts"]

UNIFORM_WINDOW_S = 4.0
"""Uniform sampling spreads its frames over the whole clip; clips of Something-Something-V2 and EPIC-KITCHENS-100, which
are sampled so, last about as long."""
USUAL_RATE = 30.0
"""Frames per second where the file states none."""
TAIL_S = 10.0
"""How far before the end of the container the last frame is looked for."""
MICROSECONDS = 1_000_000


def slide(
    model: Recogniser,
    uri: str,
    *,
    window_s: float | None = None,
    stride_s: float | None = None,
    batch: int = 4,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Timeline:
    """Predict every place of a window in a video.

    Args:
        model: what predicts; one view per window is usually enough, see `Recogniser.load`.
        uri: path or URI of the video.
        window_s: seconds that the model sees at once; None: see `usual_window_s`.
        stride_s: seconds from one place to the next; None: half a window.
        batch: windows per forward pass.
        progress: is told how many windows of how many are done.

    Raises:
        UnreadableVideo: the file cannot be opened, or none of its parts can be read.
        UserError: window or stride are no lengths, or the file is not there.
    """
    end_s, fps = video_clock(uri, time_limit_s=model.loader.time_limit_s)
    window_s = usual_window_s(model, fps) if window_s is None else window_s
    stride_s = window_s / 2 if stride_s is None else stride_s
    for name, value in (("window-s", window_s), ("stride-s", stride_s)):
        if not (value > 0 and math.isfinite(value)):
            raise UserError(f"{name} is {value:g}; give a number of seconds above 0")
    starts = window_starts(end_s, window_s, stride_s)
    spans = [(start, min(start + window_s, end_s)) for start in starts.tolist()]
    loaded = model.loader(uri, spans)
    windows: list[Window] = []
    for group in _batched(zip(spans, loaded, strict=True), batch):
        windows += _predicted(model, group)
        progress(len(windows), len(spans))
    if all(window.probabilities is None for window in windows):
        raise UnreadableVideo(windows[0].reason)
    return Timeline(
        video=uri,
        label_map=model.label_map,
        windows=tuple(windows),
        window_s=window_s,
        stride_s=stride_s,
        seconds=end_s,
    )


def usual_window_s(model: Recogniser, fps: float) -> float:
    """Seconds of a clip as the model was trained on: dense sampling, or sound, fix them; uniform sampling does not.

    Args:
        model: says how it samples.
        fps: of the video; 0.0 where it is unknown.
    """
    spec: NetworkSpec = model.spec
    sampling = model.views.sampling
    lengths = []
    if VIDEO in spec.needs:
        dense = sampling.num_frames * sampling.stride / (fps or USUAL_RATE)
        lengths.append(dense if sampling.kind == "dense" else UNIFORM_WINDOW_S)
    if AUDIO in spec.needs:
        lengths.append(spec.audio.frames * HOP / SAMPLE_RATE)
    return max(lengths)


def window_starts(end_s: float, window_s: float, stride_s: float) -> NDArray[np.float64]:
    """First seconds of windows that cover a video of `end_s` seconds; the last one ends with it."""
    last = max(end_s - window_s, 0.0)
    regular = np.arange(math.floor(last / stride_s + 1e-6) + 1, dtype=np.float64) * stride_s
    if last - regular[-1] > 1e-6 * stride_s:
        return np.append(regular, last)
    return regular


def video_clock(uri: str, *, time_limit_s: float = 60.0) -> tuple[float, float]:
    """Seconds from the first frame of a video to the end of the last one, and frames per second (0.0: not stated).

    The end is read from the last frames: containers state the length of the longest stream, or none.

    Raises:
        UnreadableVideo: the file cannot be opened, or has no frames.
        UserError: the file is not there.
    """
    recording = Recording(uri)
    try:
        container = guarded(recording.container, time_limit_s)
        return guarded(lambda: _clock(container), time_limit_s)
    except UnreadableVideo as error:
        if isinstance(error.__cause__, UserError):
            raise error.__cause__ from None
        recording.check()
        raise UnreadableVideo(explained(error.reason)) from error


def _clock(container: Any) -> tuple[float, float]:
    import av

    video = container.streams.best("video")
    if video is None:
        raise UnreadableVideo("file has no video stream")
    fps = float(video.average_rate or 0)
    zero = float((video.start_time or 0) * video.time_base)
    end = None
    if container.duration:
        try:
            begin = (container.start_time or 0) / MICROSECONDS + container.duration / MICROSECONDS - TAIL_S
            container.seek(math.floor(max(begin, zero) / video.time_base), stream=video)
            end = _last_end(container, video, fps)
        except av.FFmpegError:
            end = None  # no index: all packets are looked at
    if end is None:
        container.seek(video.start_time or 0, stream=video)
        end = _last_end(container, video, fps)
    if end is None or end <= zero:
        raise UnreadableVideo("video has no frames, or states no times for them")
    return end - zero, fps


def _last_end(container: Any, video: Any, fps: float) -> float | None:
    """Second at which the last frame from here on ends, by its packet; None if there is none."""
    usual = 1 / (fps or USUAL_RATE)
    ends = (
        float(packet.pts * packet.time_base) + (float(packet.duration * packet.time_base) if packet.duration else usual)
        for packet in container.demux(video)
        if packet.size and packet.pts is not None
    )
    return max(ends, default=None)


Group = list[tuple[tuple[float, float], Loaded]]


def _batched(loaded: Iterator[tuple[tuple[float, float], Loaded]], size: int) -> Iterator[Group]:
    while group := list(itertools.islice(loaded, size)):
        yield group


def _predicted(model: Recogniser, group: Group) -> list[Window]:
    contents = [loaded.content for _, loaded in group if loaded.content is not None]
    answers = iter(model.probabilities(contents) if contents else [])
    return [
        Window(
            start_s=start_s,
            stop_s=stop_s,
            probabilities=None if loaded.content is None else next(answers),
            reason=loaded.reason,
        )
        for (start_s, stop_s), loaded in group
    ]
