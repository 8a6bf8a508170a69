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


def placed(
    wave: np.ndarray,
    rate: int,
    places_s: list[tuple[float, float]],
    *,
    container: str = "mov",
    codec: str = "pcm_s16le",
) -> bytes:
    """A file with black video as long as the sound, and of `wave` only the pieces from and to these seconds."""
    target = io.BytesIO()
    with av.open(target, "w", format=container) as output:
        audio = output.add_stream(codec, rate=rate, layout="mono")
        video = output.add_stream("libx264", rate=10, options={"bf": "0", "tune": "zerolatency"})
        video.width = video.height = 32
        shown = 0
        for start_s, stop_s in places_s:
            for start in range(round(start_s * rate), round(stop_s * rate), 1000):
                while shown <= start * 10 / rate:
                    frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
                    frame.pts, frame.time_base = shown, Fraction(1, 10)
                    output.mux(video.encode(frame))
                    shown += 1
                piece = wave[:, start : min(start + 1000, round(stop_s * rate))]
                frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(piece), format="s16", layout="mono")
                frame.pts, frame.sample_rate, frame.time_base = start, rate, Fraction(1, rate)
                output.mux(audio.encode(frame))
        output.mux(audio.encode(None))
        output.mux(video.encode(None))
    return target.getvalue()


def chirp(rate: int, seconds: float) -> np.ndarray:
    """int16 [1, samples]; no two places sound the same."""
    at = np.arange(round(rate * seconds)) / rate
    return (20000 * np.sin(2 * np.pi * (200 * at + 20 * at**2)))[None].astype(np.int16)


def test_a_gap_in_the_track_is_silent_and_moves_nothing():
    wave = chirp(SAMPLE_RATE, 4.0)
    data = placed(wave, SAMPLE_RATE, [(0, 1), (2, 4)], container="matroska")
    expected = wave[0].copy()
    expected[SAMPLE_RATE : 2 * SAMPLE_RATE] = 0
    np.testing.assert_array_equal(read_sound(data), expected)
    for start_s, stop_s in ((2.0, 3.0), (0.5, 2.5), (1.25, 1.75), (0.5, 1.5), (3.5, None)):
        part = slice(round(start_s * SAMPLE_RATE), None if stop_s is None else round(stop_s * SAMPLE_RATE))
        np.testing.assert_array_equal(read_sound(data, start_s, stop_s), expected[part])


@pytest.mark.parametrize("rate", [8_000, 44_100, 48_000])
def test_a_gap_moves_nothing_at_other_rates(rate):
    wave = chirp(rate, 4.0)
    whole = read_sound(placed(wave, rate, [(0, 4)], container="matroska"))
    sound = read_sound(placed(wave, rate, [(0, 1), (2, 4)], container="matroska"))
    assert len(sound) == len(whole)
    for start_s, stop_s in ((0.01, 0.99), (2.01, 3.99)):
        part = slice(round(start_s * SAMPLE_RATE), round(stop_s * SAMPLE_RATE))
        # Matroska rounds the second piece's time to 1 ms, here to the right sample: 2 s are whole milliseconds.
        np.testing.assert_allclose(sound[part], whole[part], atol=2)
    assert not sound[round(1.01 * SAMPLE_RATE) : round(1.99 * SAMPLE_RATE)].any()


def test_sound_that_is_there_twice_is_heard_once():
    wave, frames = chirp(SAMPLE_RATE, 3.0), []  # our muxers write no such file
    for start in (*range(0, 32_000, 1000), *range(24_000, 48_000, 1000)):
        piece = np.ascontiguousarray(wave[:, start : start + 1000])
        frames.append(av.AudioFrame.from_ndarray(piece, format="s16", layout="mono"))
        frames[-1].pts, frames[-1].sample_rate, frames[-1].time_base = start, SAMPLE_RATE, Fraction(1, SAMPLE_RATE)
    sound = sound_module._cut(sound_module._runs(frames, 0.0, None, None), 0.0, None)
    np.testing.assert_array_equal(sound, wave[0])


def test_rounded_times_are_no_gaps():
    wave = chirp(22_050, 4.0)  # 1000 samples are 45.35 ms, which Matroska rounds
    rounded = read_sound(placed(wave, 22_050, [(0, 4)], container="matroska"))
    np.testing.assert_array_equal(rounded, read_sound(placed(wave, 22_050, [(0, 4)])))


def test_a_pause_that_cannot_be_is_named():
    wave = chirp(8_000, 90.0)
    with pytest.raises(UnreadableSound, match="sound pauses for 79 s"):
        read_sound(placed(wave, 8_000, [(0, 1), (80, 81)], container="matroska"))


@pytest.mark.parametrize("name", [NASA, PANCAKE])
def test_files_without_gaps_have_all_their_samples_in_a_row(name):
    resampler, pieces = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE), []
    with av.open(io.BytesIO(read(name))) as container:
        for frame in (*container.decode(container.streams.best("audio")), None):
            pieces += [piece.to_ndarray()[0] for piece in resampler.resample(frame)]
    np.testing.assert_array_equal(read_sound(read(name)), np.concatenate(pieces))


@pytest.mark.parametrize("begin_s", [0.0, 0.37])
@pytest.mark.parametrize(
    ("container", "codec", "rate"),
    [("mov", "pcm_s16le", 44_100), ("mp4", "flac", 48_000), ("mov", "pcm_s16le", 11_025), ("matroska", "flac", 44_100)],
)
def test_a_part_late_in_a_file_is_that_part_of_the_whole(container, codec, rate, begin_s):
    data = placed(chirp(rate, 20.0), rate, [(begin_s, 20)], container=container, codec=codec)
    whole = read_sound(data)
    # The low-pass filter knows no sound after a part: its last 2 ms differ.
    for start_s, stop_s in ((1.5, 2.0), (7.123, 9.777), (18.9, 19.5)):
        part = read_sound(data, start_s, stop_s)
        first = round(start_s * SAMPLE_RATE)
        assert abs(len(part) - (stop_s - start_s) * SAMPLE_RATE) <= 1
        np.testing.assert_array_equal(part[:-32], whole[first : first + len(part) - 32])


def test_a_part_of_aac_does_not_hear_where_decoding_began():
    with av.open(io.BytesIO(aac := read(NASA))) as container:
        assert container.streams.best("audio").codec_context.name == "aac"
    for start_s in (1.01, 3.3, 8.77):
        begin = sound_module._decode(aac, start_s, start_s + 1, enter_s=None)
        np.testing.assert_array_equal(read_sound(aac, start_s, start_s + 1), begin)


def test_a_late_part_is_decoded_without_what_stands_before(monkeypatch):
    data = placed(chirp(SAMPLE_RATE, 30.0), SAMPLE_RATE, [(0, 30)])
    starts, runs_of = [], sound_module._runs

    def runs(*arguments):
        found = runs_of(*arguments)
        starts.append(found[0].start_s)
        return found

    monkeypatch.setattr(sound_module, "_runs", runs)
    assert len(read_sound(data, 25.0, 26.0)) == SAMPLE_RATE
    assert len(starts) == 1
    assert 23 <= starts[0] <= 24


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
