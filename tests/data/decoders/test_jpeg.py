import io

import numpy as np
import pytest
from PIL import Image

from cast_ray.data.decode import UnreadableVideo, frame_window
from cast_ray.data.decoders import jpeg
from cast_ray.data.decoders.jpeg import encode_jpeg, open_jpegs

# torchvision announces that image decoding will move to torchcodec.
pytestmark = pytest.mark.filterwarnings("ignore:The image decoding and encoding:DeprecationWarning")


def picture(seed, height=48, width=64):
    """A smooth random picture, so that JPEG changes it little."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


FRAMES = [picture(seed) for seed in range(5)]
FILES = [encode_jpeg(frame, 95) for frame in FRAMES]


def by_pillow(file):
    return np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))


def test_an_encoded_frame_is_a_jpeg_that_pillow_reads():
    image = Image.open(io.BytesIO(FILES[0]))
    assert image.format == "JPEG"
    assert np.abs(np.asarray(image).astype(int) - FRAMES[0]).mean() < 3


def test_quality_is_size():
    assert len(encode_jpeg(FRAMES[0], 50)) < len(FILES[0])


def test_turned_and_read_only_frames_can_be_encoded():
    turned = np.rot90(FRAMES[0])
    assert by_pillow(encode_jpeg(turned, 95)).shape == turned.shape
    FRAMES[0].flags.writeable = False
    assert encode_jpeg(FRAMES[0], 95) == FILES[0]


def test_all_stored_frames_are_the_ones_that_pillow_decodes():
    frames = open_jpegs(FILES, num_frames=5, fps=5.0).frames(range(5))
    assert frames.dtype == np.uint8
    assert frames.flags.c_contiguous
    expected = np.stack([by_pillow(file) for file in FILES])
    # Both use libjpeg-turbo; its builds may choose another inverse transform.
    assert np.abs(frames.astype(int) - expected).max() <= 2


@pytest.mark.parametrize("num_frames", [1, 3, 5, 7, 20, 301])
def test_source_frames_map_evenly_to_stored_frames(num_frames):
    video = open_jpegs(FILES, num_frames=num_frames, fps=10.0)
    assert video.num_frames == num_frames
    stored = open_jpegs(FILES, num_frames=5, fps=5.0).frames(range(5))
    frames = video.frames(range(num_frames))
    for index in range(num_frames):
        assert np.array_equal(frames[index], stored[index * 5 // num_frames])


def test_indices_may_repeat_and_come_in_any_order():
    video = open_jpegs(FILES, num_frames=50, fps=25.0)
    assert np.array_equal(video.frames([49, 3, 3, 20]), video.frames([3, 20, 49])[[2, 0, 0, 1]])


def test_seconds_count_as_in_the_source():
    assert frame_window(open_jpegs(FILES, num_frames=50, fps=25.0), 1.0, 1.6) == (25, 15)


def test_only_wanted_frames_are_decoded_and_each_once(monkeypatch):
    decoded = []
    original = jpeg._decode
    monkeypatch.setattr(jpeg, "_decode", lambda files: decoded.extend(files) or original(files))
    open_jpegs(FILES, num_frames=50, fps=25.0).frames([0, 1, 2, 41, 45])
    assert decoded == [FILES[0], FILES[4]]


def test_a_grey_frame_becomes_rgb():
    target = io.BytesIO()
    Image.fromarray(FRAMES[0][..., 0]).save(target, "JPEG")
    frames = open_jpegs([target.getvalue()], num_frames=1, fps=1.0).frames([0])
    assert frames.shape == (1, 48, 64, 3)
    assert np.array_equal(frames[..., 0], frames[..., 2])


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        (b"", "empty"),
        (b"no picture", "broken"),
        (FILES[0][: len(FILES[0]) // 2], "broken"),
        (encode_jpeg(picture(0, 32, 64), 95), "differ in size"),
    ],
    ids=["empty", "garbage", "truncated", "other size"],
)
def test_a_broken_frame_makes_the_clip_unreadable(file, reason):
    video = open_jpegs([FILES[0], file], num_frames=2, fps=1.0)
    with pytest.raises(UnreadableVideo, match=reason) as error:
        video.frames([0, 1])
    assert len(error.value.reason) <= 160
    assert video.frames([0]).shape == (1, 48, 64, 3)


def test_a_clip_without_frames_is_unreadable():
    with pytest.raises(UnreadableVideo, match="no frames"):
        open_jpegs([], num_frames=10, fps=1.0)
    with pytest.raises(UnreadableVideo, match="no frames"):
        open_jpegs(FILES, num_frames=0, fps=1.0)
