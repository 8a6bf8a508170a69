"""How encoded sound becomes samples: bytes in, one channel at 16 kHz out, in step with the frames of the video.

PyAV decodes, FFmpeg's swresample mixes down and resamples: a mean over the channels of a stereo track, and a low-pass
filter before samples are left out. Second 0 is the first frame that a player shows, as in `cast_ray.data.decode`.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cast_ray.data.decode import Unreadable, guarded

__all__ = ["SAMPLE_RATE", "Samples", "UnreadableSound", "read_sound", "samples_for"]

SAMPLE_RATE = 16_000
"""Samples per second; the rate at which AST was trained."""
WINDOW, HOP = 400, 160
"""Samples that one column of a spectrogram is computed from (25 ms), and from one column to the next (10 ms)."""
MAX_DELAY_S = 60.0
"""Seconds by which sound may start after the video; more means that the container's times are wrong."""

Samples = NDArray[np.int16]
"""One channel at `SAMPLE_RATE`, [samples]."""


class UnreadableSound(Unreadable):
    """The file has sound, but it cannot be decoded."""


def samples_for(columns: int) -> int:
    """Samples that a spectrogram of `columns` columns is computed from."""
    return (columns - 1) * HOP + WINDOW


def read_sound(
    data: bytes, start_s: float | None = None, stop_s: float | None = None, *, time_limit_s: float = 60.0
) -> Samples | None:
    """The sound of a file from `start_s` to `stop_s` seconds (None: beginning, end); None if it has no sound track.

    Where there are several tracks, FFmpeg's choice for the video that `open_video` takes. Sound that starts after the
    video is preceded by silence, sound from before the video is left out.

    Args:
        data: the whole file.
        start_s: first second.
        stop_s: last second; the sound may end earlier.
        time_limit_s: seconds after which decoding is given up.

    Raises:
        UnreadableSound: with the reason.
    """
    return guarded(lambda: _read(data, start_s or 0.0, stop_s), time_limit_s, UnreadableSound)


def _read(data: bytes, start_s: float, stop_s: float | None) -> Samples | None:
    import av

    with av.open(io.BytesIO(data)) as container:
        video = container.streams.best("video")
        stream = container.streams.best("audio", related=video)
        if stream is None:
            return None
        stream.codec_context.thread_count = 1
        clock = stream if video is None else video
        pieces: list[Samples] = []
        begin: float | None = None  # second at which the decoded sound begins
        resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
        for frame in container.decode(stream):
            second = _seconds_after(clock, frame)
            begin = second if begin is None else begin
            if stop_s is not None and second >= stop_s:
                break
            pieces += _arrays(resampler.resample(frame))
        pieces += _arrays([] if begin is None else resampler.resample(None))
    sound = np.concatenate(pieces) if pieces else np.zeros(0, np.int16)
    return _cut(sound, begin or 0.0, start_s, stop_s)


def _seconds_after(clock: Any, frame: Any) -> float:
    """Time of a frame of sound after the first frame of the stream `clock`; 0 where the container does not say."""
    if frame.time is None or clock.start_time is None:
        return 0.0
    return float(frame.time - clock.start_time * clock.time_base)


def _arrays(frames: list[Any]) -> list[Samples]:
    return [frame.to_ndarray().reshape(-1) for frame in frames]


def _cut(sound: Samples, begin: float, start_s: float, stop_s: float | None) -> Samples:
    """The part from `start_s` to `stop_s` of sound that begins at second `begin`."""
    if begin > MAX_DELAY_S:
        raise UnreadableSound(f"sound begins {begin:.0f} s after the video")
    first = round((start_s - begin) * SAMPLE_RATE)
    stop = len(sound) if stop_s is None else round((stop_s - begin) * SAMPLE_RATE)
    silence = np.zeros(max(min(-first, stop - first), 0), np.int16)
    return np.concatenate([silence, sound[max(first, 0) : max(stop, 0)]])
