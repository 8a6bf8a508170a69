"""Segments cut out of recordings of many kinds, against decoding the whole recording from its beginning."""

from __future__ import annotations

import dataclasses
import io
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from cast_ray.data import cut as cut_module
from cast_ray.data.cut import cut, without_sound
from cast_ray.data.decode import UnreadableVideo, frame_window, open_video
from cast_ray.data.decoders.listing import list_packets
from cast_ray.data.sound import SAMPLE_RATE, read_sound

CLIPS = Path(__file__).parents[1] / "clips"
LENGTH, RATE = 120, 25
TONE_HZ = 200.0
OPEN_GROUPS = "open-gop=1:keyint=30:scenecut=0:bframes=3:b-adapt=0"


def recording(container, codec, options=None, *, sound=None, sound_rate=48_000, offset=0, milliseconds=None):
    """A moving pattern of 120 frames, 25 per second or at given milliseconds, with a tone."""
    target = io.BytesIO()
    pattern = np.random.default_rng(1).integers(0, 255, (200, 300, 3)).astype(np.uint8)
    with av.open(target, "w", format=container) as output:
        video = output.add_stream(codec, rate=RATE, options=options or {})
        video.width, video.height, video.pix_fmt = 96, 64, "yuv420p"
        if milliseconds is not None:
            video.codec_context.time_base = Fraction(1, 1000)
        track = None if sound is None else output.add_stream(sound, rate=sound_rate, layout="mono")
        for index in range(LENGTH):
            picture = np.ascontiguousarray(pattern[index % 100 :][:64, 2 * index % 200 :][:, :96])
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = index + offset, Fraction(1, RATE)
            if milliseconds is not None:
                frame.pts, frame.time_base = int(milliseconds[index]), Fraction(1, 1000)
            output.mux(video.encode(frame))
            if track is not None:
                length = sound_rate // RATE
                times = np.arange(index * length, (index + 1) * length) / sound_rate
                wave = (8000 * np.sin(2 * np.pi * TONE_HZ * times)).astype(np.int16)[None]
                piece = av.AudioFrame.from_ndarray(wave, format="s16", layout="mono")
                piece.sample_rate, piece.pts = sound_rate, (index + offset) * length
                output.mux(track.encode(piece))
        output.mux(video.encode(None))
        if track is not None:
            output.mux(track.encode(None))
    return target.getvalue()


def decoded_in_order(data):
    with av.open(io.BytesIO(data)) as container:
        frames = container.decode(container.streams.best("video"))
        return np.stack([np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90) for frame in frames])


def assert_exact(data, start_s, stop_s, expected):
    """The piece's window has the pixels `expected`, found as training finds it."""
    with av.open(io.BytesIO(data)) as container:
        piece = cut(container, start_s, stop_s, sound=True)
    video = open_video(piece.data)
    first, count = frame_window(video, piece.start_s, piece.stop_s)
    assert (first, count) == (piece.first, piece.num_frames)
    assert count == len(expected)
    np.testing.assert_array_equal(video.frames(range(first, first + count)), expected)
    return piece


KINDS = {
    "H.264 mp4, open groups of pictures": (("mp4", "libx264", {"x264-params": OPEN_GROUPS}), {"sound": "aac"}),
    "H.264 Matroska, open groups of pictures": (("matroska", "libx264", {"x264-params": OPEN_GROUPS}), {}),
    "H.264 transport stream that begins late": (("mpegts", "libx264", {"bf": "2", "g": "30"}), {"offset": 100}),
    "H.264 Flash video": (("flv", "libx264", {"bf": "2", "g": "30"}), {}),
    "HEVC mp4": (("mp4", "libx265", {"x265-params": "keyint=30:open-gop=1:bframes=4:log-level=none"}), {}),
    "MPEG-2 transport stream": (("mpegts", "mpeg2video", {"g": "15", "bf": "2"}), {}),
    "MPEG-4 mp4": (("mp4", "mpeg4", {"g": "30", "bf": "2"}), {}),
    "VP9 WebM, hidden reference frames": (
        ("webm", "libvpx-vp9", {"g": "30", "cpu-used": "8", "auto-alt-ref": "1", "lag-in-frames": "16"}),
        {"sound": "libopus"},
    ),
    "VP8 WebM, which mp4 does not hold": (("webm", "libvpx", {"g": "30", "cpu-used": "8"}), {}),
    "AV1 mp4": (("mp4", "libsvtav1", {"g": "30", "preset": "12"}), {}),
    "Motion JPEG AVI": (("avi", "mjpeg", {"strict": "-1"}), {}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_piece_has_exactly_the_frames_of_the_segment(kind):
    arguments, keywords = KINDS[kind]
    data = recording(*arguments, **keywords)
    whole = decoded_in_order(data)
    assert len(whole) == LENGTH
    rng = np.random.default_rng(0)
    random = [sorted(rng.uniform(0, LENGTH / RATE, 2).round(2)) for _ in range(6)]
    # Ties (2.5 frames), key frames, one frame alone, open ends.
    for start_s, stop_s in [(0.1, 0.5), (1.2, 2.4), (1.16, 1.2), (None, 0.7), (3.3, None), (4.0, 99.0), *random]:
        first = round((start_s or 0) * RATE)
        stop = LENGTH if stop_s is None else round(stop_s * RATE)
        assert_exact(data, start_s, stop_s, whole[first:stop])


@pytest.mark.parametrize("name", ["arm_wrestling_k400.mp4", "flipping_pancake_k400.mkv", "nasa_with_audio.mp4"])
def test_pieces_of_real_clips_are_exact(name):
    data = (CLIPS / name).read_bytes()
    video, whole = open_video(data), decoded_in_order(data)
    for start_s, stop_s in [(0.5, 2.0), (5.0, 5.6), (7.33, None), (None, 0.9)]:
        first, count = frame_window(video, start_s, stop_s)
        piece = assert_exact(data, start_s, stop_s, whole[first : first + count])
        assert piece.fps == video.fps


def test_a_piece_of_rotated_video_stays_rotated():
    data = (CLIPS / "rotated_90.mov").read_bytes()
    assert_exact(data, 0.03, 0.07, decoded_in_order(data)[1:2])


@pytest.mark.parametrize("hidden", [5, 50])
def test_frames_that_the_container_hides_are_no_part_of_a_segment(hidden):
    target = io.BytesIO()
    options = {"avoid_negative_ts": "disabled", "use_editlist": "1"}
    with (
        av.open(io.BytesIO(recording("mp4", "libx264", {"g": "30"}))) as source,
        av.open(target, "w", format="mp4", options=options) as copy,
    ):
        stream = source.streams.video[0]
        output = copy.add_stream_from_template(stream)
        shift = round(hidden / (RATE * stream.time_base))
        for packet in source.demux(stream):
            if packet.dts is not None:
                packet.stream, packet.pts, packet.dts = output, packet.pts - shift, packet.dts - shift
                copy.mux(packet)
    data = target.getvalue()
    whole = decoded_in_order(data)
    assert len(whole) == LENGTH - hidden
    assert_exact(data, None, 1.0, whole[:25])
    assert_exact(data, 0.0, 1.0, whole[:25])
    assert_exact(data, 1.0, 2.0, whole[25:50])


@pytest.mark.parametrize("container", ["mp4", "matroska"])
def test_times_and_not_indices_count_where_the_frame_rate_varies(container):
    rng = np.random.default_rng(3)
    milliseconds = np.concatenate([[0], np.cumsum(rng.integers(15, 90, LENGTH - 1))])
    data = recording(container, "libx264", {"bf": "2", "g": "30"}, milliseconds=milliseconds)
    whole, fps = decoded_in_order(data), open_video(data).fps
    for start_s, stop_s in [(1.0, 2.0), (0.3, 4.5), (3.21, 3.77), (None, 1.1)]:
        # To half a frame, as everywhere.
        begin, end = ((round((second or 0) * fps) - 0.5) / fps * 1000 for second in (start_s, stop_s))
        expected = whole[(milliseconds >= begin) & (milliseconds < end)]
        assert_exact(data, start_s, stop_s, expected)


def test_a_piece_is_no_longer_than_it_must_be():
    data = recording("mp4", "libx264", {"bf": "0", "g": "30", "sc_threshold": "0"})
    with av.open(io.BytesIO(data)) as container:
        piece = cut(container, 1.4, 2.0, sound=True)  # frames 35 to 50; key frames 30 and 60
    assert open_video(piece.data).num_frames == 20
    assert piece.first == 5


def test_sound_at_16_khz_is_the_same_samples():
    data = (CLIPS / "nasa_with_audio.mp4").read_bytes()
    for start_s, stop_s in [(0.0, 2.0), (1.02, 1.1), (5.06, 8.96), (8.4, None)]:
        with av.open(io.BytesIO(data)) as container:
            piece = cut(container, start_s, stop_s, sound=True)
        sound = read_sound(piece.data, piece.start_s, piece.stop_s)
        np.testing.assert_array_equal(sound, read_sound(data, start_s, stop_s))


@pytest.mark.parametrize(
    ("container", "codec", "rate", "shift_s"),
    [
        ("mp4", "aac", 44_100, 1 / SAMPLE_RATE),
        ("mp4", "aac", 48_000, 1 / SAMPLE_RATE),
        ("matroska", "libopus", 48_000, 0.001 + 1 / SAMPLE_RATE),
    ],
)
def test_sound_at_other_rates_is_the_same_to_a_sample_and_to_the_containers_rounding(container, codec, rate, shift_s):
    data = recording(container, "libx264", {"g": "30"}, sound=codec, sound_rate=rate)
    for start_s, stop_s in [(0.5, 2.0), (1.2, 2.4), (2.02, 3.1)]:
        with av.open(io.BytesIO(data)) as opened:
            piece = cut(opened, start_s, stop_s, sound=True)
        ours = read_sound(piece.data, piece.start_s, piece.stop_s).astype(float)
        expected = read_sound(data, start_s, stop_s).astype(float)
        assert abs(len(ours) - len(expected)) <= 1
        shortest = min(len(ours), len(expected))
        # A sine that is shifted by t differs by at most its amplitude times 2 pi f t; the rest is the codec's noise.
        bound = 8000 * 2 * np.pi * TONE_HZ * shift_s + 400
        assert np.abs(ours[:shortest] - expected[:shortest]).max() < bound


def test_video_without_its_sound_keeps_frames_and_seconds():
    data = (CLIPS / "nasa_with_audio.mp4").read_bytes()
    with av.open(io.BytesIO(data)) as container:
        piece = cut(container, 5.0, 6.0, sound=True)
    alone, video = open_video(without_sound(piece.data)), open_video(piece.data)
    assert read_sound(without_sound(piece.data)) is None
    window = frame_window(video, piece.start_s, piece.stop_s)
    assert frame_window(alone, piece.start_s, piece.stop_s) == window
    indices = range(window[0], sum(window))
    np.testing.assert_array_equal(alone.frames(indices), video.frames(indices))


@pytest.mark.parametrize(("start_s", "stop_s"), [(30.0, 31.0), (2.0, 2.0), (3.0, 2.0)])
def test_a_segment_without_frames_says_how_long_the_video_is(start_s, stop_s):
    with (
        av.open(str(CLIPS / "arm_wrestling_k400.mp4")) as container,
        pytest.raises(UnreadableVideo, match=rf"no frame between {start_s} s and {stop_s} s"),
    ):
        cut(container, start_s, stop_s, sound=True)


def test_matroska_is_taken_where_mp4_does_not_give_all_frames_back(monkeypatch):
    data = recording("mp4", "libx264", {"bf": "2", "g": "30"}, sound="aac")
    names = []

    def lossy(piece):
        listing = list_packets(piece)
        names.append(listing.container)
        return dataclasses.replace(listing, packets=listing.packets[1:]) if "mp4" in listing.container else listing

    monkeypatch.setattr(cut_module, "list_packets", lossy)
    piece = assert_exact(data, 1.5, 3.0, decoded_in_order(data)[38:75])
    assert ["mp4" in name for name in names] == [True, False]
    assert len(read_sound(piece.data, piece.start_s, piece.stop_s)) == 24_000


def test_sound_packets_without_a_time_of_their_own_are_left_out():
    target = io.BytesIO()
    with (
        av.open(io.BytesIO(recording("matroska", "libx264", {"g": "30"}, sound="pcm_s16le"))) as source,
        av.open(target, "w", format="matroska") as copy,
    ):
        streams = [copy.add_stream_from_template(stream, opaque=True) for stream in source.streams]
        for packet in source.demux():
            if packet.size:
                packet.stream = streams[packet.stream.index]
                if packet.stream is streams[1] and 2000 < packet.pts < 2300:
                    packet.pts = packet.dts = 2000
                copy.mux(packet)
    piece = assert_exact(target.getvalue(), 1.5, 3.0, decoded_in_order(target.getvalue())[38:75])
    assert "mp4" in list_packets(piece.data).container  # which takes no two packets with one time


def test_recordings_that_cannot_be_cut_say_why():
    refreshed = recording("mp4", "libx264", {"x264-params": "intra-refresh=1:keyint=30:bframes=0"})
    with av.open(io.BytesIO(refreshed)) as container, pytest.raises(UnreadableVideo, match="no true key frames"):
        cut(container, 2.5, 3.5, sound=False)
    reordered = recording("avi", "mpeg4", {"bf": "2"})
    with av.open(io.BytesIO(reordered)) as container, pytest.raises(UnreadableVideo, match="AVI states no times"):
        cut(container, 1.0, 2.0, sound=False)


@pytest.mark.parametrize("container", ["mp4", "matroska"])
def test_a_piece_of_constant_rate_has_the_stated_one(container):
    data = recording(container, "libx264", {"bf": "2", "g": "30"})
    for start_s, stop_s in [(0.1, 0.5), (1.16, 1.2), (None, 0.7), (3.3, None), (4.0, 99.0), (2.0, 2.06)]:
        with av.open(io.BytesIO(data)) as opened:
            assert cut(opened, start_s, stop_s, sound=False).fps == RATE


@pytest.mark.parametrize("container", ["mp4", "matroska"])
@pytest.mark.parametrize("bf", ["0", "3"])
def test_a_piece_of_varying_rate_has_that_of_its_frames(container, bf):
    steps = np.repeat([20, 100, 40], LENGTH // 3)
    milliseconds = np.concatenate([[0], np.cumsum(steps)])
    data = recording(container, "libx264", {"bf": bf, "g": "20"}, milliseconds=milliseconds)
    for start_s, stop_s in [(0.1, 0.6), (1.0, 4.0), (0.4, 2.8), (4.9, 5.9), (4.0, 5.7), (5.0, None)]:
        with av.open(io.BytesIO(data)) as opened:
            piece = cut(opened, start_s, stop_s, sound=False)
            half = 0.5 / float(opened.streams.video[0].average_rate)
        begin, end = ((second * 1000 - half * 1000) for second in (start_s, stop_s or 99.0))
        inside = np.flatnonzero((milliseconds[:-1] >= begin) & (milliseconds[:-1] < end))
        seconds = (milliseconds[inside[-1] + 1] - milliseconds[inside[0]]) / 1000
        assert piece.num_frames == pytest.approx(len(inside), abs=1)
        assert piece.num_frames / piece.fps == pytest.approx(seconds, abs=0.11)


def test_a_segment_between_two_frames_says_so_and_one_behind_the_last_where_the_video_ends():
    data = recording(
        "mp4", "libx264", {"g": "30"}, milliseconds=np.arange(LENGTH) * 40 + 3000 * (np.arange(LENGTH) > 50)
    )
    with av.open(io.BytesIO(data)) as opened:
        with pytest.raises(UnreadableVideo, match=r"no frame between 3\.0 s and 4\.0 s: the next one is at 5\.04 s"):
            cut(opened, 3.0, 4.0, sound=False)
        with pytest.raises(UnreadableVideo, match=r"no frame between 30\.0 s and 31\.0 s: the video ends at 7\.8\d s"):
            cut(opened, 30.0, 31.0, sound=False)
