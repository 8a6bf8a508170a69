"""How encoded sound becomes samples: bytes in, one channel at 16 kHz out, in step with the frames of the video.

PyAV decodes, FFmpeg's swresample mixes down and resamples: a mean over the channels of a stereo track, and a low-pass
filter before samples are left out. Second 0 is the first frame that a player shows, as in `cast_ray.data.decode`.
The times that the container states for the sound say where it belongs: what is missing becomes silence.
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cast_ray.data.decode import Unreadable, guarded
from cast_ray.data.decoders.container import open_container

__all__ = ["SAMPLE_RATE", "Samples", "UnreadableSound", "read_sound", "samples_for"]

SAMPLE_RATE = 16_000
"""Samples per second; the rate at which AST was trained."""
WINDOW, HOP = 400, 160
"""Samples that one column of a spectrogram is computed from (25 ms), and from one column to the next (10 ms)."""
MAX_DELAY_S = 60.0
"""Seconds by which sound may start after the video, or pause; more means that the container's times are wrong."""
JITTER_S = 0.01
"""Seconds that stated times may be off before they mean a gap: Matroska rounds to 1 ms, a lost packet is 20 ms."""
PREROLL_S = 1.0
"""Seconds decoded before a part, so that decoder and low-pass filter are in the state they have without seeking."""

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
    video is preceded by silence, gaps in the track are silent, sound from before the video is left out. A part is
    that part of the whole, but for noise that a codec makes up (AAC's noise substitution).

    Args:
        data: the whole file.
        start_s: first second.
        stop_s: last second; the sound may end earlier.
        time_limit_s: seconds after which decoding is given up.

    Raises:
        UnreadableSound: with the reason.
    """
    return guarded(lambda: _read(data, start_s or 0.0, stop_s), time_limit_s, UnreadableSound)


class _NoEntry(Exception):  # noqa: N818 - an answer, not a fault
    """The container cannot be entered shortly before the second that is asked for."""


def _read(data: bytes, start_s: float, stop_s: float | None) -> Samples | None:
    import av

    if start_s > PREROLL_S:
        with contextlib.suppress(_NoEntry, av.FFmpegError):
            return _decode(data, start_s, stop_s, enter_s=start_s - PREROLL_S)
    return _decode(data, start_s, stop_s, enter_s=None)


def _decode(data: bytes, start_s: float, stop_s: float | None, *, enter_s: float | None) -> Samples | None:
    """`read_sound`, decoding from `enter_s` or a little before; None: from the beginning of the file."""
    with open_container(io.BytesIO(data)) as container:
        video = container.streams.best("video")
        stream = container.streams.best("audio", related=video)
        if stream is None:
            return None
        stream.codec_context.thread_count = 1
        clock = stream if video is None else video
        zero = None if clock.start_time is None else float(clock.start_time * clock.time_base)
        begin = None if enter_s is None else _enter(container, stream, zero, enter_s)
        runs = _runs(container.decode(stream), zero, begin, stop_s)
        if enter_s is not None and (not runs or runs[0].start_s > start_s - PREROLL_S / 2):
            raise _NoEntry
        if not runs:
            return np.zeros(0, np.int16)
        return _cut(runs, start_s, stop_s)


def _enter(container: Any, stream: Any, zero: float | None, second: float) -> float:
    """Go to `second` or before; the second at which the whole sound begins."""
    # Times in milliseconds (Matroska, FLV) do not say which sample one has come to.
    if zero is None or stream.start_time is None or stream.time_base * stream.rate > 1:
        raise _NoEntry
    begin = float(stream.start_time * stream.time_base) - zero
    if begin >= second:
        raise _NoEntry
    container.seek(math.floor((zero + second) / stream.time_base), stream=stream)
    return begin


class _Run:
    """Sound without a gap, resampled as one piece.

    Its samples lie on the grid of the whole sound, which begins at second `begin`: seeking shifts nothing by a part of
    a sample. Silence before the first frame brings the resampler to a common point of both rates, and is dropped.
    """

    def __init__(self, start_s: float, begin: float, rate: int) -> None:
        import av

        self.start_s, self.begin = start_s, begin
        place = round((start_s - begin) * rate)
        self.first = math.ceil(place * SAMPLE_RATE / rate)
        self._silence = place % (rate // math.gcd(rate, SAMPLE_RATE))
        self._skip = math.ceil(self._silence * SAMPLE_RATE / rate)
        self._rate, self._decoded = rate, 0
        self._resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
        self._pieces: list[Samples] = []

    @property
    def end_s(self) -> float:
        return self.start_s + self._decoded / self._rate

    def add(self, frame: Any) -> None:
        if self._silence and not self._decoded:
            self._resample(_after_silence(frame, self._silence))
        else:
            self._resample(frame)
        self._decoded += frame.samples

    def samples(self) -> Samples:
        """The run from sample `first` of the grid on; takes no frames after that."""
        if not self._decoded:
            return np.zeros(0, np.int16)
        self._resample(None)
        return np.concatenate(self._pieces)[self._skip :]

    def _resample(self, frame: Any) -> None:
        self._pieces += [piece.to_ndarray().reshape(-1) for piece in self._resampler.resample(frame)]


def _after_silence(frame: Any, samples: int) -> Any:
    import av

    sound = frame.to_ndarray()
    width = samples * (1 if frame.format.is_planar else frame.layout.nb_channels)
    zero = 128 if sound.dtype == np.uint8 else 0
    sound = np.pad(sound, ((0, 0), (width, 0)), constant_values=zero)
    longer = av.AudioFrame.from_ndarray(sound, format=frame.format.name, layout=frame.layout.name)
    longer.sample_rate = frame.sample_rate
    return longer


def _runs(frames: Iterable[Any], zero: float | None, begin: float | None, stop_s: float | None) -> list[_Run]:
    """The frames of sound before `stop_s`; a new run starts where a frame's time is not the end of the frame before.

    A last run without frames means that sound goes on after a gap that contains `stop_s`.

    Args:
        frames: in the order of decoding.
        zero: second 0 in the container's time; None where it does not say, then the sound is taken to have no gaps.
        begin: second at which the whole sound begins; None if that is the first of `frames`.
        stop_s: as in `read_sound`.
    """
    runs: list[_Run] = []
    for frame in frames:
        second = runs[-1].end_s if runs else 0.0
        if zero is not None and frame.time is not None:
            second = frame.time - zero
        begin = second if begin is None else begin
        if not runs:
            runs.append(_Run(second, begin, frame.sample_rate))
        elif abs(second - runs[-1].end_s) > JITTER_S:
            # A time far away may be wrong, and needs no silence beyond the part.
            start_s = second if stop_s is None else min(second, stop_s + JITTER_S)
            runs.append(_Run(start_s, begin, frame.sample_rate))
        if stop_s is not None and second >= stop_s:
            break
        runs[-1].add(frame)
    return runs


def _cut(runs: list[_Run], start_s: float, stop_s: float | None) -> Samples:
    """The part from `start_s` to `stop_s` of the runs, with silence between; the earlier one where they overlap."""
    begin = runs[0].begin
    if begin > MAX_DELAY_S:
        raise UnreadableSound(f"sound begins {begin:.0f} s after the video")
    runs = sorted(runs, key=lambda run: run.first)
    offset = end = runs[0].first
    pieces: list[Samples] = []
    for run in runs:
        samples, gap = run.samples(), run.first - end
        if gap > MAX_DELAY_S * SAMPLE_RATE:
            raise UnreadableSound(f"sound pauses for {gap / SAMPLE_RATE:.0f} s")
        pieces += [np.zeros(max(gap, 0), np.int16), samples[max(-gap, 0) :]]
        end = max(end, run.first + len(samples))
    sound = np.concatenate(pieces)
    first = round((start_s - begin) * SAMPLE_RATE) - offset
    stop = len(sound) if stop_s is None else round((stop_s - begin) * SAMPLE_RATE) - offset
    silence = np.zeros(max(min(-first, stop - first), 0), np.int16)
    return np.concatenate([silence, sound[max(first, 0) : max(stop, 0)]])
