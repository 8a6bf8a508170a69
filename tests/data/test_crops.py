import math

import numpy as np
import pytest
import torch
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.v2 import functional as V

from cast_ray.data.crops import (
    Box,
    centre_crop,
    crop_and_resize,
    random_resized_crop_box,
    resize_short_side,
    three_crop_view,
)
from cast_ray.data.sampling import three_crops


def noise(frames, height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)


def test_box_statistics_equal_those_of_torchvision():
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    image = torch.zeros(3, 240, 427)
    scale, ratio = (0.08, 1.0), (0.75, 4 / 3)
    ours = np.array([random_resized_crop_box(240, 427, rng, scale, ratio) for _ in range(6000)], dtype=float)
    theirs = np.array([RandomResizedCrop.get_params(image, scale, ratio) for _ in range(6000)], dtype=float)
    for column in range(4):
        a, b = np.sort(ours[:, column]), np.sort(theirs[:, column])
        # Kolmogorov-Smirnov distance of two samples: 0.031 is exceeded by chance in less than 1 of 100 runs.
        grid = np.unique(np.concatenate([a, b]))
        distance = np.abs(np.searchsorted(a, grid, "right") / len(a) - np.searchsorted(b, grid, "right") / len(b)).max()
        assert distance < 0.031
    areas = ours[:, 2] * ours[:, 3] / (240 * 427)
    assert areas.min() > 0.075
    assert np.abs(np.log(ours[:, 3] / ours[:, 2])).max() < math.log(4 / 3) + 0.02


def test_boxes_lie_inside_the_frame():
    rng = np.random.default_rng(1)
    for height, width in [(1, 1), (2, 300), (300, 2), (224, 224)]:
        for _ in range(200):
            box = random_resized_crop_box(height, width, rng)
            assert 0 <= box.top <= box.top + box.height <= height
            assert 0 <= box.left <= box.left + box.width <= width
            assert box.height > 0
            assert box.width > 0


@pytest.mark.parametrize(("height", "width"), [(20, 400), (400, 20), (100, 110)])
def test_fallback_is_the_box_of_torchvision(height, width):
    # A whole-frame scale with a ratio that never fits forces the centre box in both.
    scale, ratio = (3.0, 3.0), (0.75, 4 / 3)
    expected = RandomResizedCrop.get_params(torch.zeros(3, height, width), scale, ratio)
    assert tuple(random_resized_crop_box(height, width, np.random.default_rng(0), scale, ratio)) == tuple(expected)


@pytest.mark.parametrize("size", [32, 224])
def test_crop_and_resize_equals_torchvision_without_antialias(size):
    frames, box = noise(3, 120, 160), Box(7, 11, 80, 100)
    ours = crop_and_resize(frames, box, size)
    assert ours.shape == (3, size, size, 3)
    assert ours.dtype == np.uint8
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2).float()
    theirs = V.resized_crop(pixels, *box, [size, size], antialias=False).permute(0, 2, 3, 1).numpy()
    # Rounding to uint8, with interpolation weights in fixed-point arithmetic.
    assert np.abs(ours - theirs).max() <= 1.01
    assert abs((ours - theirs).mean()) < 0.25


def test_all_frames_get_the_same_box():
    still = np.repeat(noise(1, 60, 80), 4, axis=0)
    cropped = crop_and_resize(still, Box(3, 5, 40, 30), 24)
    assert (cropped == cropped[:1]).all()


def test_a_crop_of_the_output_size_is_copied_exactly():
    frames = noise(2, 60, 80)
    assert (crop_and_resize(frames, Box(1, 2, 32, 32), 32) == frames[:, 1:33, 2:34]).all()


@pytest.mark.parametrize(
    ("height", "width", "resized"), [(240, 427, (32, 56)), (427, 240, (56, 32)), (50, 50, (32, 32))]
)
def test_short_side_is_resized_and_ratio_kept(height, width, resized):
    assert resize_short_side(noise(2, height, width), 32).shape == (2, *resized, 3)


def test_centre_crop_equals_torchvision():
    frames = noise(2, 50, 70)
    expected = V.center_crop(torch.from_numpy(frames).permute(0, 3, 1, 2), [32, 32]).permute(0, 2, 3, 1).numpy()
    assert (centre_crop(frames, 32) == expected).all()
    with pytest.raises(ValueError, match="smaller than the crop"):
        centre_crop(frames, 64)


@pytest.mark.parametrize(("height", "width"), [(60, 90), (90, 60), (60, 60)])
def test_three_crops_cover_the_long_side_from_end_to_end(height, width):
    frames = noise(2, height, width)
    plan = three_crops(height, width, 48)
    small = resize_short_side(frames, 48)
    views = [three_crop_view(frames, 48, plan, which) for which in range(3)]
    assert all(view.shape == (2, 48, 48, 3) for view in views)
    assert (views[0] == small[:, :48, :48]).all()
    assert (views[1] == centre_crop(small, 48)).all()
    assert (views[2] == small[:, -48:, -48:]).all()
