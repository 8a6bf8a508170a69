"""Which part of the frames is kept, at which size: crops and resizes of uint8 frames on the CPU.

Shapes: frames are uint8 [T, H, W, 3]; T frames, H rows, W columns; boxes and sizes are in pixels.
Resizing is bilinear without low-pass filter, as OpenCV's INTER_LINEAR, with which the papers' models were trained;
with filter, as PIL does it, smaller frames would look smoother than the ones the released weights have seen.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from cast_ray.data.sampling import CropPlan, short_side_size

__all__ = [
    "Box",
    "centre_crop",
    "crop_and_resize",
    "random_resized_crop_box",
    "resize",
    "resize_short_side",
    "three_crop_view",
]

Frames = NDArray[np.uint8]
ATTEMPTS = 10
"""Boxes that are tried before the centre of the frame is taken, as in torchvision."""


class Box(NamedTuple):
    """A rectangle of pixels."""

    top: int
    left: int
    height: int
    width: int


def random_resized_crop_box(
    height: int,
    width: int,
    rng: np.random.Generator,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Box:
    """One box for all frames of a clip, with the distribution of torchvision's RandomResizedCrop.

    Args:
        height: of the frames.
        width: of the frames.
        rng: source of randomness.
        scale: smallest and largest part of the frame's area.
        ratio: smallest and largest width / height; uniform in its logarithm.
    """
    for _ in range(ATTEMPTS):
        area = height * width * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        box_width, box_height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < box_width <= width and 0 < box_height <= height:
            top = int(rng.integers(height - box_height + 1))
            left = int(rng.integers(width - box_width + 1))
            return Box(top, left, box_height, box_width)
    return _largest_centre_box(height, width, ratio)


def crop_and_resize(frames: Frames, box: Box, size: int) -> Frames:
    """Cut `box` out of every frame and resize it to `size` x `size`."""
    return resize(_cut(frames, box), (size, size))


def resize_short_side(frames: Frames, size: int) -> Frames:
    """Resize so that the shorter side is `size`; the longer side is rounded down."""
    return resize(frames, short_side_size(frames.shape[1], frames.shape[2], size))


def centre_crop(frames: Frames, size: int) -> Frames:
    """The `size` x `size` square in the middle of the frames, which must be at least that large."""
    height, width = frames.shape[1:3]
    if min(height, width) < size:
        raise ValueError(f"frames of {height} x {width} are smaller than the crop of {size} x {size}")
    return _cut(frames, Box((height - size) // 2, (width - size) // 2, size, size))


def three_crop_view(frames: Frames, size: int, plan: CropPlan, which: int) -> Frames:
    """Test crop `which` (0, 1 or 2) of `plan`: frames resized to `plan.resized`, then cut to `size` x `size`."""
    offset = plan.offsets[which]
    top, left = (offset, 0) if plan.axis == "height" else (0, offset)
    return _cut(resize(frames, plan.resized), Box(top, left, size, size))


def resize(frames: Frames, size: tuple[int, int]) -> Frames:
    """Resize to `size` = (height, width), bilinear without low-pass filter."""
    if frames.shape[1:3] == size:
        return frames
    # A permuted view has the memory layout "channels last", for which torch has a fast uint8 kernel.
    pixels = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2)
    resized = F.interpolate(pixels, size=size, mode="bilinear", align_corners=False, antialias=False)
    return np.ascontiguousarray(resized.permute(0, 2, 3, 1).numpy())


def _cut(frames: Frames, box: Box) -> Frames:
    return np.ascontiguousarray(frames[:, box.top : box.top + box.height, box.left : box.left + box.width])


def _largest_centre_box(height: int, width: int, ratio: tuple[float, float]) -> Box:
    aspect = min(max(width / height, ratio[0]), ratio[1])
    box_height = min(height, round(width / aspect))
    box_width = min(width, round(height * aspect))
    return Box((height - box_height) // 2, (width - box_width) // 2, box_height, box_width)
