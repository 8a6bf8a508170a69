import functools
import io
import itertools
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from cast_ray.data.decode import UnreadableVideo, open_video
from cast_ray.data.decoders import pyav
from cast_ray.data.decoders.listing import list_packets

CLIPS = Path(__file__).parents[2] / "clips"
LENGTH, RATE = 60, 30
X264 = {"threads": "1", "preset": "veryfast"}
X265 = "pools=none:frame-threads=1:log-level=none:"

# Name, encoder, container, options of the encoder.
KINDS = [
    ("H.264, one key frame", "libx264", "mp4", {**X264, "g": "250", "bf": "3"}),
    ("H.264, every frame a key frame", "libx264", "mp4", {**X264, "g": "1"}),
    ("H.264, groups of 8", "libx264", "mp4", {**X264, "g": "8", "bf": "0"}),
    ("H.264, open groups", "libx264", "matroska", {**X264, "g": "12", "x264-params": "open-gop=1:bframes=3:b-adapt=0"}),
    (
        "H.264, pyramid of references",
        "libx264",
        "mp4",
        {**X264, "g": "20", "x264-params": "bframes=7:b-adapt=0:b-pyramid=normal:ref=5"},
    ),
    ("H.264, transport stream", "libx264", "mpegts", {**X264, "g": "12", "bf": "2"}),
    ("H.264, intra refresh", "libx264", "mp4", {**X264, "g": "20", "bf": "0", "x264-params": "intra-refresh=1"}),
    ("H.264, AVI, which has no presentation times", "libx264", "avi", {**X264, "g": "12", "bf": "3"}),
    ("H.265, open groups", "libx265", "mp4", {"preset": "ultrafast", "x265-params": X265 + "keyint=12:bframes=4"}),
    ("VP9, hidden reference frames", "libvpx-vp9", "webm", {"cpu-used": "5", "g": "20", "lag-in-frames": "12"}),
    ("VP8", "libvpx", "webm", {"cpu-used": "8", "g": "20", "lag-in-frames": "10", "auto-alt-ref": "1"}),
    ("MPEG-4", "mpeg4", "mp4", {}),
    ("MPEG-2", "mpeg2video", "mpegts", {}),
    ("motion JPEG", "mjpeg", "mp4", {}),
    ("AV1", "libsvtav1", "mp4", {"preset": "12", "g": "15"}),
    ("WMV, a codec without short cuts", "wmv2", "asf", {}),
]


@functools.cache
def small_pictures():
    """90 frames of one clip and, after a cut, 60 of another."""
    pictures = []
    for name, count in (("arm_wrestling_k400.mp4", 90), ("flipping_pancake_k400.mkv", 60)):
        with av.open(str(CLIPS / name)) as container:
            frames = itertools.islice(container.decode(video=0), count)
            pictures += [frame.reformat(width=128, height=96, format="yuv420p").to_ndarray() for frame in frames]
    return pictures


@functools.cache
def encoded(codec, container, options, length=LENGTH):
    target = io.BytesIO()
    with av.open(target, "w", format=container) as file:
        stream = file.add_stream(codec, rate=RATE, options=dict(options))
        stream.width, stream.height = 128, 96
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.time_base = Fraction(1, RATE)
        if codec.startswith("mpeg"):
            stream.codec_context.gop_size, stream.codec_context.max_b_frames = 12, 2
        for index, planes in enumerate(small_pictures()[:length]):
            frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
            frame.pts = index
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return target.getvalue()


def every_frame(data):
    """All frames, decoded one after the other: what a player shows."""
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.best("video")
        stream.codec_context.thread_count = 1
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(stream)])


@pytest.mark.parametrize(
    ("codec", "container", "options"), [kind[1:] for kind in KINDS], ids=[kind[0] for kind in KINDS]
)
def test_single_frames_are_those_of_the_whole_decoded_in_order(codec, container, options):
    data = encoded(codec, container, tuple(options.items()))
    expected = every_frame(data)
    video = open_video(data, decoder="pyav")
    assert video.num_frames == len(expected) == LENGTH
    rng = np.random.default_rng(0)
    for size in (1, 1, 1, 2, 2, 4, 4, 8, 16, 16):
        indices = np.sort(rng.choice(LENGTH, size, replace=False))
        assert np.array_equal(video.frames(indices), expected[indices]), indices
    assert np.array_equal(video.frames(range(LENGTH)), expected)


class CountingContext:
    """A codec context that counts the pictures which the decoder makes."""

    def __init__(self, context):
        object.__setattr__(self, "context", context)
        object.__setattr__(self, "packets", 0)
        object.__setattr__(self, "pictures", 0)

    def __getattr__(self, name):
        return getattr(self.context, name)

    def __setattr__(self, name, value):
        setattr(self.context, name, value)

    def decode(self, packet):
        pictures = self.context.decode(packet)
        object.__setattr__(self, "packets", self.packets + (packet is not None))
        object.__setattr__(self, "pictures", self.pictures + len(pictures))
        return pictures


def work_for(data, indices):
    """Packets given to the decoder, and pictures made, for the frames at `indices`."""
    listing = list_packets(data)
    counting = CountingContext(listing.codec_context)
    object.__setattr__(listing, "codec_context", counting)
    pyav.open_pyav(listing).read(indices)
    return counting.packets, counting.pictures


def test_groups_without_a_wanted_frame_are_passed_over():
    options = {**X264, "g": "8", "bf": "0", "x264-params": "scenecut=0"}
    data = encoded("libx264", "mp4", tuple(options.items()))
    assert work_for(data, [0, 8, 42]) == (1 + 1 + 3, 5)  # 42 needs 40, 41
    assert work_for(data, [50]) == (3, 3)
    assert work_for(data, [7, 8]) == (9, 9)


def test_frames_that_no_other_needs_are_not_decoded():
    options = {**X264, "g": "250", "x264-params": "bframes=3:b-adapt=0:b-pyramid=none:scenecut=0"}
    data = encoded("libx264", "mp4", tuple(options.items()))
    packets, pictures = work_for(data, [0, LENGTH - 1])
    assert packets >= LENGTH - 3  # frames that are stored after the last one and shown before it are not needed
    assert pictures <= LENGTH / 4 + 2


def test_a_wanted_frame_that_no_other_needs_is_decoded_at_once():
    options = {**X264, "g": "250", "x264-params": "bframes=3:b-adapt=0:b-pyramid=none:scenecut=0"}
    data = encoded("libx264", "mp4", tuple(options.items()))
    assert work_for(data, list(range(LENGTH))) == (LENGTH, LENGTH)


def test_a_frame_before_the_key_frame_of_an_open_group_needs_the_group_before_and_no_more():
    options = {**X264, "g": "12", "x264-params": "open-gop=1:bframes=3:b-adapt=0:scenecut=0"}
    data = encoded("libx264", "mp4", tuple(options.items()))
    packets = list_packets(data).packets
    keys = [index for index, packet in enumerate(packets) if packet.is_keyframe]
    times = sorted(packet.pts for packet in packets)
    leading = times.index(packets[keys[3] + 1].pts)
    assert packets[keys[3] + 1].pts < packets[keys[3]].pts
    assert work_for(data, [leading])[0] == keys[3] + 2 - keys[2]


def test_pictures_of_intra_refresh_that_only_pass_for_key_frames_are_found_out():
    options = {**X264, "g": "40", "bf": "0", "x264-params": "intra-refresh=1:scenecut=0"}
    data = encoded("libx264", "mp4", tuple(options.items()), length=150)
    expected = every_frame(data)
    video = open_video(data, decoder="pyav")
    for index in range(84, 94):  # decoded from packet 80 on, which is marked as a key frame, some of these are wrong
        assert np.array_equal(video.frames([index])[0], expected[index]), index


@pytest.mark.parametrize("flaw", ["missing", "equal"])
def test_without_times_frames_are_counted(flaw):
    options = {**X264, "g": "12", "bf": "3"}
    data = encoded("libx264", "mp4", tuple(options.items()))
    listing = list_packets(data)
    for packet in listing.packets:
        packet.pts = None if flaw == "missing" else 0
    frames = pyav.open_pyav(listing).read([3, 17, LENGTH - 1])
    assert np.array_equal(frames, every_frame(data)[[3, 17, LENGTH - 1]])


def test_a_stream_that_starts_between_key_frames_gives_right_frames_or_none():
    options = {**X264, "g": "12", "bf": "0", "x264-params": "scenecut=0"}
    data = encoded("libx264", "mp4", tuple(options.items()))
    listing = list_packets(data)
    cut = listing.packets[5:]
    object.__setattr__(listing, "packets", cut)
    source = pyav.open_pyav(listing)
    with pytest.raises(UnreadableVideo, match="1 of 2 frames could not be decoded"):
        source.read([2, 20])
    assert np.array_equal(source.read([20]), every_frame(data)[[25]])
