import functools
import io
import itertools
import re
import subprocess
import sys
import threading
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from cast_ray.data import decode
from cast_ray.data.decode import UnreadableVideo, check_decoder, frame_window, open_video
from cast_ray.data.decoders.video import Source
from cast_ray.errors import UserError

try:
    check_decoder("torchcodec")
    WITHOUT_FFMPEG = ""
except UserError as error:
    WITHOUT_FFMPEG = str(error)
TORCHCODEC = pytest.param("torchcodec", marks=pytest.mark.skipif(bool(WITHOUT_FFMPEG), reason=WITHOUT_FFMPEG))
DECODERS = ("decord", "pyav", TORCHCODEC)
CLIPS = Path(__file__).parents[1] / "clips"
SHAPES = {
    "arm_wrestling_k400.mp4": (280, 256, 340, 28.0),
    "flipping_pancake_k400.mkv": (310, 240, 426, 30.0),
    "nasa_with_audio.mp4": (390, 270, 480, 30000 / 1001),
    "rotated_90.mov": (3, 568, 320, 30.0),
    "unordered_timestamps.mov": (4, 50, 50, 32.0),
}


def read(name):
    return (CLIPS / name).read_bytes()


def pyav_frames(data):
    """All frames as a player shows them, decoded one after the other."""
    with av.open(io.BytesIO(data)) as container:
        frames = container.decode(container.streams.best("video"))
        return np.stack([np.rot90(f.to_ndarray(format="rgb24"), k=f.rotation // 90) for f in frames])


@functools.cache
def expected_frames(name):
    return pyav_frames(read(name))


def cut_without_encoding(name, hidden):
    """A copy of a clip whose first `hidden` frames lie before time zero, as a cut at no key frame leaves them."""
    target = io.BytesIO()
    options = {"avoid_negative_ts": "disabled", "use_editlist": "1"}
    with av.open(str(CLIPS / name)) as source, av.open(target, "w", format="mp4", options=options) as copy:
        stream = source.streams.video[0]
        output = copy.add_stream_from_template(stream)
        shift = round(hidden / (stream.average_rate * stream.time_base))
        for packet in source.demux(stream):
            if packet.dts is not None:
                packet.stream = output
                packet.pts -= shift
                packet.dts -= shift
                copy.mux(packet)
    return target.getvalue()


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("name", SHAPES)
def test_real_clips_give_the_same_pixels_with_every_decoder(name, decoder):
    length, height, width, fps = SHAPES[name]
    data = read(name)
    video = open_video(data, decoder=decoder)
    assert video.num_frames == length
    assert video.fps == pytest.approx(fps)
    expected = expected_frames(name)
    rng = np.random.default_rng(0)
    for indices in (
        np.linspace(0, length - 1, 16).astype(int),
        rng.integers(0, length, 16),
        np.array([length - 1]),
        np.array([0]),
    ):
        frames = video.frames(indices)
        assert frames.shape == (len(indices), height, width, 3)
        assert frames.dtype == np.uint8
        # No tolerance: builds of one decoder and colour conversion.
        assert np.array_equal(frames, expected[indices])


@pytest.mark.parametrize("decoder", DECODERS)
def test_every_frame_of_a_container_without_frame_count_is_reached(decoder):
    video = open_video(read("flipping_pancake_k400.mkv"), decoder=decoder)
    assert np.array_equal(video.frames(range(310)), expected_frames("flipping_pancake_k400.mkv"))


@pytest.mark.parametrize("decoder", DECODERS)
def test_rotation_tag_is_applied(decoder):
    frame = open_video(read("rotated_90.mov"), decoder=decoder).frames([0])[0]
    with av.open(str(CLIPS / "rotated_90.mov")) as container:
        stored = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert stored.shape == (320, 568, 3)
    assert np.array_equal(frame, np.rot90(stored, k=-1))


@pytest.mark.parametrize("decoder", DECODERS)
def test_indices_may_repeat_and_come_in_any_order(decoder):
    video = open_video(read("arm_wrestling_k400.mp4"), decoder=decoder)
    frames = video.frames([200, 3, 3, 200, 40])
    assert np.array_equal(frames, video.frames([3, 40, 200])[[2, 0, 0, 2, 1]])


@pytest.mark.parametrize("indices", [[-1], [280], []])
def test_indices_outside_the_video_are_refused(indices):
    with pytest.raises(IndexError):
        open_video(read("arm_wrestling_k400.mp4")).frames(indices)


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("hidden", [5, 130])
def test_frames_that_the_container_hides_are_not_counted_or_returned(hidden, decoder):
    data = cut_without_encoding("arm_wrestling_k400.mp4", hidden)
    video = open_video(data, decoder=decoder)
    assert video.num_frames == 280 - hidden
    indices = np.linspace(0, video.num_frames - 1, 8).astype(int)
    assert np.array_equal(video.frames(indices), expected_frames("arm_wrestling_k400.mp4")[hidden + indices])


@functools.cache
def copied(container):
    """A real clip whose frames are not stored in the order in which they are shown, in another container."""
    target = io.BytesIO()
    with av.open(str(CLIPS / "nasa_with_audio.mp4")) as source, av.open(target, "w", format=container) as copy:
        stream = source.streams.best("video")
        output = copy.add_stream_from_template(stream)
        for packet in source.demux(stream):
            if packet.size:
                packet.stream = output
                copy.mux(packet)
    return target.getvalue()


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("container", ["matroska", "mpegts"])
def test_other_containers_give_the_same_frames(container, decoder):
    indices = [0, 1, 7, 100, 251, 389]
    frames = open_video(copied(container), decoder=decoder).frames(indices)
    assert np.array_equal(frames, expected_frames("nasa_with_audio.mp4")[indices])


@pytest.mark.parametrize("decoder", DECODERS)
def test_variable_frame_rate_is_counted_in_frames(decoder):
    target = io.BytesIO()
    with av.open(str(CLIPS / "arm_wrestling_k400.mp4")) as source, av.open(target, "w", format="mp4") as copy:
        stream = source.streams.video[0]
        output = copy.add_stream_from_template(stream)
        later = round(3 / stream.time_base)  # the picture stands still for three seconds after frame 99
        for packet in source.demux(stream):
            if packet.size:
                packet.stream = output
                packet.pts += later * (packet.pts >= 100 * 512)
                packet.dts += later * (packet.dts >= 100 * 512)
                copy.mux(packet)
    video = open_video(target.getvalue(), decoder=decoder)
    assert video.num_frames == 280
    assert video.fps == pytest.approx(280 / 13, rel=0.01)
    indices = [0, 98, 99, 100, 101, 200, 279]
    assert np.array_equal(video.frames(indices), expected_frames("arm_wrestling_k400.mp4")[indices])


def read_sixteen_frames(data, decoder):
    video = open_video(data, decoder=decoder)
    return video.frames(np.linspace(0, video.num_frames - 1, 16).astype(int))


def damaged_files():
    mp4, mkv = read("arm_wrestling_k400.mp4"), read("flipping_pancake_k400.mkv")
    zeros = bytes(100_000)
    yield "empty", b""
    yield "random bytes", np.random.default_rng(0).bytes(100_000)
    yield "web page", b"<html><body>404 not found</body></html>" * 100
    yield "zeros", zeros
    for part in (0.1, 0.5, 0.9, 0.99):
        yield f"truncated to {part}", mp4[: int(len(mp4) * part)]
    yield "hole in the middle", mp4[:200_000] + zeros + mp4[300_000:]
    yield "corrupted.mp4", read("corrupted.mp4")
    yield "half a header", mkv[:64]


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize(
    ("kind", "data"), list(damaged_files()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_damaged_files_are_reported_quickly_and_quietly(kind, data, decoder, capfd):
    start = time.monotonic()
    with pytest.raises(UnreadableVideo) as error:
        read_sixteen_frames(data, decoder)
    assert time.monotonic() - start < 20
    reason = error.value.reason
    assert 5 < len(reason) <= 160
    assert "\n" not in reason
    assert not re.search(r"Errno|Check failed|\.c(c|pp):", reason)
    assert len(capfd.readouterr().err) < 300


@pytest.mark.parametrize("decoder", DECODERS)
def test_random_damage_gives_frames_or_a_reason_but_never_hangs(decoder):
    original = np.frombuffer(read("nasa_with_audio.mp4"), dtype=np.uint8)
    failures = 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        data = original.copy()
        start = int(rng.integers(1000, len(data) - 3000))
        data[start : start + 2000] = rng.integers(0, 256, 2000)
        try:
            video = open_video(data.tobytes(), decoder=decoder, time_limit_s=20)
            assert video.frames([0, video.num_frames - 1]).dtype == np.uint8
        except UnreadableVideo as error:
            failures += 1
            assert "did not finish" not in error.reason  # noqa: PT017
    assert failures > 0


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_truncated_stream_without_index_gives_its_intact_part(decoder):
    data = read("flipping_pancake_k400.mkv")
    video = open_video(data[: len(data) // 2], decoder=decoder)
    assert video.num_frames == 150
    assert np.array_equal(video.frames([0, 100]), expected_frames("flipping_pancake_k400.mkv")[[0, 100]])


def test_sound_without_video_is_named():
    target = io.BytesIO()
    with av.open(target, "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), dtype=np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)
    with pytest.raises(UnreadableVideo, match="no video stream"):
        open_video(target.getvalue())


class Endless:
    """Stands for a native loop without end: lets other threads run and ends when the test does."""

    def __init__(self):
        self.release = threading.Event()

    def __call__(self, *args):
        self.release.wait(60)
        return args


@pytest.fixture
def endless():
    stuck = Endless()
    yield stuck
    stuck.release.set()


@pytest.mark.parametrize("decoder", DECODERS)
def test_opening_without_end_is_given_up_and_the_next_clip_is_decoded(decoder, endless, monkeypatch):
    data = read("unordered_timestamps.mov")
    with monkeypatch.context() as patch:
        patch.setattr(decode, f"open_{decoder}", endless)
        start = time.monotonic()
        with pytest.raises(UnreadableVideo, match=r"did not finish within 0.3 s"):
            open_video(data, decoder=decoder, time_limit_s=0.3)
        assert time.monotonic() - start < 10
    frames = open_video(data, decoder=decoder).frames(range(4))
    assert np.array_equal(frames, expected_frames("unordered_timestamps.mov"))


def test_reading_without_end_is_given_up_and_the_next_clip_is_decoded(endless, monkeypatch):
    data = read("unordered_timestamps.mov")
    with monkeypatch.context() as patch:
        patch.setattr(decode, "open_decord", lambda data, fps: Source(num_frames=4, fps=fps, read=endless))
        video = open_video(data, time_limit_s=0.3)
        with pytest.raises(UnreadableVideo, match=r"did not finish within 0.3 s"):
            video.frames([0])
    assert np.array_equal(open_video(data).frames(range(4)), expected_frames("unordered_timestamps.mov"))


@pytest.mark.parametrize(
    ("decoder", "module", "advice"),
    [("decord", "decord", "package decord"), ("pyav", "av", "package av"), ("torchcodec", "torchcodec", "apt install")],
)
def test_a_decoder_that_cannot_be_loaded_is_the_users_mistake_with_what_to_install(decoder, module, advice):
    # In a process of its own: the libraries are loaded once.
    code = (
        f"import sys; sys.modules[{module!r}] = None\n"
        "from cast_ray.data.decode import open_video\n"
        "from cast_ray.errors import UserError\n"
        f"try:\n    open_video(b'x', decoder={decoder!r})\n"
        "except UserError as error:\n    print(error)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert f"data.decoder is {decoder}, which cannot be loaded here" in result.stdout
    assert advice in result.stdout


def test_missing_native_libraries_are_the_users_mistake_too(monkeypatch):
    def fail(name):
        raise RuntimeError("Could not load libtorchcodec.\nMany lines follow.")

    check_decoder.cache_clear()
    monkeypatch.setattr(decode.importlib, "import_module", fail)
    with pytest.raises(
        UserError, match=r"Could not load libtorchcodec.; install .* FFmpeg's shared libraries"
    ) as error:
        check_decoder("torchcodec")
    assert "Many lines" not in str(error.value)


def test_libraries_are_loaded_only_when_a_video_is_opened():
    libraries = {"PIL", "av", "decord", "torch", "torchcodec", "torchvision"}
    code = (
        f"import sys, cast_ray.data.decode, cast_ray.data.decoders.jpeg; print(sorted({libraries} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_window_in_seconds_becomes_frames():
    video = open_video(read("arm_wrestling_k400.mp4"))  # 280 frames, 28 per second
    assert frame_window(video, None, None) == (0, 280)
    assert frame_window(video, 1.0, 2.5) == (28, 42)
    assert frame_window(video, None, 1.0) == (0, 28)
    assert frame_window(video, 9.5, None) == (266, 14)
    assert frame_window(video, 9.5, 99.0) == (266, 14)


@pytest.mark.parametrize(("start", "stop"), [(10.0, 11.0), (3.0, 3.0), (3.0, 2.0)])
def test_window_without_frames_makes_the_clip_unreadable(start, stop):
    video = open_video(read("arm_wrestling_k400.mp4"))
    with pytest.raises(UnreadableVideo, match=r"the video lasts 10.00 s"):
        frame_window(video, start, stop)


@pytest.mark.parametrize("decoder", ["pyav", TORCHCODEC])
def test_a_video_whose_size_changes_is_refused_in_words(decoder):
    stream, target = b"", io.BytesIO()
    for width, height in ((160, 120), (320, 240)):
        part = io.BytesIO()
        with av.open(part, "w", format="h264") as container:
            video = container.add_stream("libx264", rate=25, options={"bf": "0"})
            video.width, video.height = width, height
            for index in range(10):
                frame = av.VideoFrame(width, height, "yuv420p")
                frame.pts = index
                container.mux(video.encode(frame))
            container.mux(video.encode(None))
        stream += part.getvalue()
    with av.open(io.BytesIO(stream), format="h264") as source, av.open(target, "w", format="matroska") as container:
        video = container.add_stream_from_template(source.streams.video[0])
        for index, packet in enumerate([packet for packet in source.demux(video=0) if packet.size]):
            packet.stream, packet.pts, packet.dts, packet.time_base = video, 40 * index, 40 * index, Fraction(1, 1000)
            container.mux(packet)
    video = open_video(target.getvalue(), decoder=decoder)
    assert video.num_frames == 20
    with pytest.raises(UnreadableVideo, match=r"^frames differ in size(: 160x120, 320x240)?$"):
        video.frames([0, 5, 19])


@pytest.mark.parametrize("pixel_format", ["yuv420p10le", "yuv422p", "yuv444p"])
@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_deep_and_wide_colours_do_not_depend_on_the_decoder(codec, pixel_format):
    target = io.BytesIO()
    with av.open(str(CLIPS / "nasa_with_audio.mp4")) as source, av.open(target, "w", format="mp4") as container:
        video = container.add_stream(codec, rate=25, options={"crf": "10", "x265-params": "log-level=none"})
        video.width, video.height, video.pix_fmt = 320, 180, pixel_format
        for index, frame in enumerate(itertools.islice(source.decode(video=0), 10)):
            smaller = frame.reformat(320, 180, pixel_format)
            smaller.pts, smaller.time_base, smaller.pict_type = index, Fraction(1, 25), 0
            container.mux(video.encode(smaller))
        container.mux(video.encode(None))
    loadable = ("decord", "pyav") if WITHOUT_FFMPEG else ("decord", "pyav", "torchcodec")
    frames = [open_video(target.getvalue(), decoder=decoder).frames(range(10)) for decoder in loadable]
    for other in frames[1:]:
        np.testing.assert_array_equal(other, frames[0])
