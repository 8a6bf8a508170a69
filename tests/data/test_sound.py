"""Decoded sound of real clips and of made files, against FFmpeg's samples and SciPy's resampling."""

from __future__ import annotations

import io
import subprocess
import sys
import threading
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from scipy.signal import resample_poly

from cast_ray.data import sound as sound_module
from cast_ray.data.sound import SAMPLE_RATE, UnreadableSound, read_sound, samples_for

CLIPS = Path(__file__).parents[1] / "clips"
NASA, PANCAKE = "nasa_with_audio.mp4", "flipping_pancake_k400.mkv"


def read(name: str) -> bytes:
    return (CLIPS / name).read_bytes()


def decoded(data: bytes) -> tuple[np.ndarray, int]:
    """The mean over the channels of FFmpeg's preferred track in -1..1, at its own rate."""
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.best("audio")
        packets = [frame.to_ndarray() for frame in container.decode(stream)]
        return np.concatenate(packets, axis=1).mean(axis=0), stream.rate


def tone(rate: int, channels: list[float], seconds: float = 1.0, hertz: float = 440.0) -> np.ndarray:
    """int16 [channels, samples]; `channels` are amplitudes."""
    wave = np.sin(2 * np.pi * hertz * np.arange(round(rate * seconds)) / rate)
    return (np.outer(channels, wave) * 20000).astype(np.int16)


def file_of(wave: np.ndarray, rate: int, *, video_starts_s: float | None = None, sound_starts_s: float = 0.0) -> bytes:
    """A Matroska file with this sound, uncompressed, and if asked for ten black frames per second for one second."""
    target = io.BytesIO()
    with av.open(target, "w", format="matroska") as container:
        layout = {1: "mono", 2: "stereo"}[len(wave)]
        audio = container.add_stream("pcm_s16le", rate=rate, layout=layout)
        if video_starts_s is not None:
            video = container.add_stream("libx264", rate=10, options={"bf": "0"})
            video.width = video.height = 32
            for index in range(10):
                frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
                frame.pts, frame.time_base = index + round(video_starts_s * 10), Fraction(1, 10)
                container.mux(video.encode(frame))
            container.mux(video.encode(None))
        for start in range(0, wave.shape[1], 1000):
            piece = np.ascontiguousarray(wave[:, start : start + 1000].T.reshape(1, -1))
            frame = av.AudioFrame.from_ndarray(piece, format="s16", layout=layout)
            frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
            frame.pts = start + round(sound_starts_s * rate)
            container.mux(audio.encode(frame))
        container.mux(audio.encode(None))
    return target.getvalue()


def assert_close(ours: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    """Equal in -1..1 but for the first and last 2 ms, where two resamplers differ in what they assume outside."""
    shortest = min(len(ours), len(expected))
    assert abs(len(ours) - len(expected)) <= 32
    inner = slice(32, shortest - 32)
    np.testing.assert_allclose(ours[inner] / 32768, expected[inner], atol=tolerance)


def test_a_track_at_16_khz_is_the_mean_of_its_channels():
    expected, rate = decoded(read(NASA))
    assert rate == SAMPLE_RATE
    sound = read_sound(read(NASA))
    assert sound.dtype == np.int16
    assert_close(sound, expected, 1.5 / 32768)


def test_another_rate_is_resampled():
    expected, rate = decoded(read(PANCAKE))
    assert rate == 48_000
    expected = resample_poly(expected, 1, 3)
    ours = read_sound(read(PANCAKE))
    assert_close(ours, expected, 0.02)  # two low-pass filters; the loudest sample is 0.6
    shortest = min(len(ours), len(expected))
    assert np.corrcoef(ours[:shortest], expected[:shortest])[0, 1] > 0.9995


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100])
def test_a_tone_keeps_pitch_loudness_and_time_at_every_rate(rate):
    sound = read_sound(file_of(tone(rate, [1.0, 0.5]), rate))
    assert_close(sound, tone(SAMPLE_RATE, [0.75])[0] / 32768, 2e-3)


def test_what_16_khz_cannot_hold_is_left_out_and_not_folded_back():
    sound = read_sound(file_of(tone(44_100, [1.0], hertz=12_000), 44_100))
    assert np.abs(sound[400:-400]).max() < 40  # of 20,000


@pytest.mark.parametrize("name", ["arm_wrestling_k400.mp4", "rotated_90.mov", "unordered_timestamps.mov"])
def test_a_file_without_sound_has_none(name):
    assert read_sound(read(name)) is None


def test_a_part_in_seconds_is_that_part_of_the_whole():
    whole = read_sound(read(NASA))
    for start_s, stop_s in ((0.0, 2.5), (3.25, 5.0), (12.5, None), (None, 1.0), (12.9, 99.0)):
        first = round((start_s or 0) * SAMPLE_RATE)
        stop = None if stop_s is None else round(stop_s * SAMPLE_RATE)
        np.testing.assert_array_equal(read_sound(read(NASA), start_s, stop_s), whole[first:stop])


def test_a_part_after_the_end_is_empty():
    assert len(read_sound(read(NASA), 60.0, 61.0)) == 0


def test_sound_that_starts_after_the_video_is_preceded_by_silence():
    wave = tone(SAMPLE_RATE, [1.0], seconds=0.5)
    data = file_of(wave, SAMPLE_RATE, video_starts_s=0.0, sound_starts_s=0.25)
    sound = read_sound(data)
    assert not sound[:4000].any()
    np.testing.assert_array_equal(sound[4000:], wave[0])
    np.testing.assert_array_equal(read_sound(data, 0.2, 0.4), np.concatenate([np.zeros(800, np.int16), wave[0, :2400]]))
    assert not read_sound(data, 0.0, 0.2).any()
    assert len(read_sound(data, 0.0, 0.2)) <= 3200


def test_sound_from_before_the_first_frame_is_left_out():
    wave = tone(SAMPLE_RATE, [1.0], seconds=0.9)
    sound = read_sound(file_of(wave, SAMPLE_RATE, video_starts_s=0.3))
    np.testing.assert_array_equal(sound, wave[0, 4800:])


def test_times_that_cannot_be_are_named():
    data = file_of(tone(SAMPLE_RATE, [1.0]), SAMPLE_RATE, video_starts_s=0.0, sound_starts_s=100_000.0)
    with pytest.raises(UnreadableSound, match="sound begins 100000 s after the video"):
        read_sound(data)


@pytest.mark.parametrize("data", [b"", b"<html>404</html>" * 100, read("nasa_with_audio.mp4")[:50_000]])
def test_damaged_files_are_reported(data):
    with pytest.raises(UnreadableSound) as caught:
        read_sound(data)
    assert 5 < len(caught.value.reason) <= 160


def test_random_damage_gives_samples_or_a_reason():
    original = np.frombuffer(read(PANCAKE), dtype=np.uint8)
    outcomes = set()
    for seed in range(8):
        rng = np.random.default_rng(seed)
        data = original.copy()
        for start in rng.integers(1000, len(data) - 3000, 5):
            data[start : start + 2000] = rng.integers(0, 256, 2000)
        try:
            outcomes.add(type(read_sound(data.tobytes(), time_limit_s=20)))
        except UnreadableSound as error:
            assert "did not finish" not in error.reason  # noqa: PT017
    assert outcomes <= {np.ndarray, type(None)}


def test_decoding_without_end_is_given_up(monkeypatch):
    release = threading.Event()
    monkeypatch.setattr(sound_module, "_read", lambda *_: release.wait())
    start = time.monotonic()
    with pytest.raises(UnreadableSound, match=r"did not finish within 0.2 s"):
        read_sound(b"", time_limit_s=0.2)
    release.set()
    assert time.monotonic() - start < 10


def test_a_spectrogram_needs_whole_windows():
    assert samples_for(1) == 400
    assert samples_for(400) == 64_240


def test_libraries_are_loaded_only_when_sound_is_read():
    code = "import sys, cast_ray.data.sound; print(sorted({'av', 'decord', 'torch'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
