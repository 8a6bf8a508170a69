import io
from pathlib import Path

import av
import numpy as np
import pytest

from cast_ray.data.decode import UnreadableVideo
from cast_ray.data.decoders.listing import list_packets

CLIPS = Path(__file__).parents[2] / "clips"


def listing_of(name):
    return list_packets((CLIPS / name).read_bytes())


@pytest.mark.parametrize(
    ("name", "shown", "fps"),
    [
        ("arm_wrestling_k400.mp4", 280, 28.0),
        ("flipping_pancake_k400.mkv", 310, 30.0),
        ("nasa_with_audio.mp4", 390, 30000 / 1001),
        ("rotated_90.mov", 3, 30.0),
        ("unordered_timestamps.mov", 4, 32.0),
    ],
)
def test_the_real_clips_are_plain(name, shown, fps):
    listing = listing_of(name)
    assert listing.shown == shown
    assert listing.fps == pytest.approx(fps)
    assert listing.codec == "h264"
    assert listing.plain


def repacked(name, container, change=lambda packets: packets):
    """A copy of a clip's packets in another container, after `change`."""
    target = io.BytesIO()
    with av.open(str(CLIPS / name)) as source, av.open(target, "w", format=container) as copy:
        stream = source.streams.best("video")
        output = copy.add_stream_from_template(stream)
        for packet in change([packet for packet in source.demux(stream) if packet.size]):
            packet.stream = output
            copy.mux(packet)
    return list_packets(target.getvalue())


def test_the_same_stream_is_plain_in_containers_with_an_index_only():
    assert repacked("arm_wrestling_k400.mp4", "matroska").plain
    assert not repacked("arm_wrestling_k400.mp4", "mpegts").plain


def test_a_stream_that_starts_between_key_frames_is_not_plain():
    listing = repacked("flipping_pancake_k400.mkv", "matroska", lambda packets: packets[5:])
    assert listing.times_known
    assert not listing.plain


def test_times_that_were_made_up_are_not_known():
    listing = listing_of("arm_wrestling_k400.mp4")
    for packet in listing.packets:
        packet.pts = packet.dts  # what FFmpeg does for AVI
    assert not listing.times_known
    assert not listing.plain


def test_rising_times_are_true_where_frames_are_not_reordered():
    assert listing_of("flipping_pancake_k400.mkv").times_known


def test_a_frame_shown_before_its_key_frame_makes_a_group_open():
    listing = listing_of("arm_wrestling_k400.mp4")
    position = [index for index, packet in enumerate(listing.packets) if packet.is_keyframe][1]
    key, after = listing.packets[position], listing.packets[position + 1]
    key.pts, after.pts = after.pts, key.pts
    assert listing.times_known
    assert not listing.plain


def test_a_file_without_video_is_named():
    target = io.BytesIO()
    with av.open(target, "w", format="wav") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame(format="s16", layout="mono", samples=800)
        frame.sample_rate = 8000
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)
    with pytest.raises(UnreadableVideo, match="no video stream"):
        list_packets(target.getvalue())


@pytest.mark.parametrize(
    ("codec", "pixel_format", "plain"),
    [
        ("libx264", "yuv420p", True),
        ("libx264", "yuvj420p", True),
        ("libx264", "yuv444p", False),
        ("libx264", "yuv422p", False),
        ("libx264", "yuv420p10le", False),
        ("libx265", "yuv420p", True),
        ("libx265", "yuv420p10le", False),
    ],
)
def test_only_8_bit_420_video_goes_to_other_decoders_than_pyav(codec, pixel_format, plain):
    target = io.BytesIO()
    with av.open(target, "w", format="mp4") as container:
        stream = container.add_stream(codec, rate=10, options={"x265-params": "log-level=none"})
        stream.width, stream.height, stream.pix_fmt = 160, 96, pixel_format
        for index in range(20):
            frame = av.VideoFrame.from_ndarray(np.full((96, 160, 3), 12 * index, np.uint8), format="rgb24")
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert list_packets(target.getvalue()).plain == plain
