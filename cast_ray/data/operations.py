"""What the operations of RandAugment do to the frames of a clip, and how strongly at which magnitude.

Shapes: T frames, H rows, W columns. Frames are uint8 RGB [T, 3, H, W], on any device.

Sources: RandAugment (arXiv 1909.13719) with the operations and magnitude laws of timm's "increasing" set, which CAST
was trained with. timm lets PIL do the work; the rounding here is PIL's. Compared operation by operation in the tests.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["MAGNITUDE_SCALE", "OPERATIONS", "Operation", "apply_operations"]

FILL = 128
"""Grey that fills what moves in from outside the frame."""
MAGNITUDE_SCALE = 10.0
"""Magnitudes run from 0 to this."""
TRANSLATE_FRACTION = 0.45
ROTATE_DEGREES = 30.0
SHEAR_FACTOR = 0.3
GREY = (0.299, 0.587, 0.114)
"""Shares of red, green and blue in brightness (ITU-R 601)."""
SLACK = 0.004
"""Added before the fraction is cut off, because float32 may put a whole grey level slightly below itself."""
FRAMES_AT_ONCE = 4
"""Frames that are turned into floating point at a time."""


class Operation(NamedTuple):
    """One operation with its argument, in the unit of its magnitude law (0.0 where there is none)."""

    name: str
    argument: float


def apply_operations(frames: Tensor, operations: Sequence[Operation]) -> Tensor:
    """Apply the operations to all frames of one clip; uint8 [T, 3, H, W] in and out, on any device."""
    for name, argument in operations:
        frames = OPERATIONS[name].apply(frames, argument)
    return frames


class _Law(NamedTuple):
    """How strength and sign become an argument, and what the operation does with it."""

    argument: Callable[[float, float], float]
    apply: Callable[[Tensor, float], Tensor]


def _none(level: float, sign: float) -> float:
    return 0.0


def _enhance(level: float, sign: float) -> float:
    return max(0.1, 1.0 + sign * 0.9 * level)


def _signed(largest: float) -> Callable[[float, float], float]:
    return lambda level, sign: sign * largest * level


def _in_parts(frames: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """`change` of a few frames at a time: its temporaries stay in the processor's cache.

    Those of 16 frames also cost twice the time in page faults, as the allocator gives so large pieces back each time.
    """
    return torch.cat([change(part) for part in frames.split(FRAMES_AT_ONCE)])


def _look_up(frames: Tensor, tables: Tensor) -> Tensor:
    """Every value replaced by what stands for it in the table of its frame and channel.

    One gather takes less time than the passes over floating-point frames that the arithmetic of the table would take.
    Frame by frame, because gather wants 64-bit indices: see `_in_parts`.

    Args:
        frames: uint8 [T, 3, H, W].
        tables: [T or 1, 3 or 1, 256]; fractions are cut off, values outside 0 to 255 are clamped.
    """
    tables = tables.clamp(0, 255).to(torch.uint8).expand(*frames.shape[:2], 256)
    changed = [table.gather(1, frame.flatten(1).long()) for table, frame in zip(tables, frames, strict=True)]
    return torch.stack(changed).reshape(frames.shape)


def _levels(frames: Tensor) -> Tensor:
    """The table that changes nothing, int64 [256]."""
    return torch.arange(256, device=frames.device)


def _autocontrast(frames: Tensor, _: float) -> Tensor:
    levels = _levels(frames)
    low, high = (limit[..., None].double() for limit in (frames.amin((2, 3)), frames.amax((2, 3))))
    scale = 255 / (high - low)
    return _look_up(frames, torch.where(high > low, levels * scale - low * scale, levels))


def _equalize(frames: Tensor, _: float) -> Tensor:
    counts = torch.stack([_histogram(frame) for frame in frames])
    brightest = counts.gather(2, frames.amax((2, 3))[..., None].long())
    step = (counts.sum(2, keepdim=True) - brightest) // 255
    darker = counts.cumsum(2) - counts
    tables = (step // 2 + darker) // step.clamp(min=1)
    return _look_up(frames, torch.where(step > 0, tables, _levels(frames)))


def _histogram(frame: Tensor) -> Tensor:
    """How often each value is there, int64 [3, 256], of uint8 [3, H, W]."""
    values = frame.flatten(1).long()
    return torch.zeros(3, 256, dtype=torch.int64, device=frame.device).scatter_add_(1, values, torch.ones_like(values))


def _posterize(frames: Tensor, bits: float) -> Tensor:
    # The law reaches 0 bits at full strength, which would make the clip black; timm raises an error there.
    return frames & (256 - 2 ** (8 - max(1, int(bits))))


def _solarize(frames: Tensor, threshold: float) -> Tensor:
    levels = _levels(frames)
    return _look_up(frames, torch.where(levels < threshold, levels, 255 - levels)[None, None])


def _solarize_add(frames: Tensor, add: float) -> Tensor:
    levels = _levels(frames)
    return _look_up(frames, torch.where(levels < 128, levels + int(add), levels)[None, None])


def _brightness(frames: Tensor, factor: float) -> Tensor:
    return _look_up(frames, _levels(frames)[None, None].float() * factor)


def _contrast(frames: Tensor, factor: float) -> Tensor:
    weights = torch.tensor(GREY, device=frames.device)
    grey = (frames.mean((2, 3), dtype=torch.float32) * weights).sum(1).round()[:, None, None]
    return _look_up(frames, grey + factor * (_levels(frames) - grey))


def _colour(frames: Tensor, factor: float) -> Tensor:
    pixels = frames.float()
    red, green, blue = pixels.unbind(1)
    # PIL's integers; they and their sum are exact in float32.
    grey = (red * 19595).add_(green, alpha=38470).add_(blue, alpha=7471).add_(32768).div_(65536).floor_()[:, None]
    return pixels.sub_(grey).mul_(factor).add_(grey).clamp_(0, 255).to(torch.uint8)


def _sharpness(frames: Tensor, factor: float) -> Tensor:
    # Not in parts: the convolution has a fast path only for many channels.
    pixels = _as_channels(frames)
    kernel = torch.tensor([[1.0, 1.0, 1.0], [1.0, 5.0, 1.0], [1.0, 1.0, 1.0]], device=frames.device) / 13
    count = pixels.shape[1]
    smooth = F.conv2d(pixels, kernel.expand(count, 1, 3, 3), groups=count).round_()
    pixels[..., 1:-1, 1:-1].sub_(smooth).mul_(factor).add_(smooth)  # the outermost pixels stay
    return pixels.clamp_(0, 255).to(torch.uint8).reshape(frames.shape)


def _as_channels(frames: Tensor) -> Tensor:
    """All frames as the channels of one image, float32 [1, 3 T, H, W]: what is the same for all is computed once."""
    return frames.reshape(1, -1, *frames.shape[-2:]).float()


def _affine(
    frames: Tensor, *, x: tuple[float, float, float] = (1, 0, 0), y: tuple[float, float, float] = (0, 1, 0)
) -> Tensor:
    """Pixel (column, row) comes from x[0] * column + x[1] * row + x[2] and likewise with y, between pixels bilinearly.

    Coordinates are of the pixels' centres; beyond the frame is grey. As PIL's `Image.transform` does it.
    """
    height, width = frames.shape[-2:]
    # Twice the precision, so that the same pixels as in PIL lie outside.
    columns = torch.arange(width, dtype=torch.float64, device=frames.device) + 0.5
    rows = torch.arange(height, dtype=torch.float64, device=frames.device)[:, None] + 0.5
    across, down = (a * columns + (b * rows + c) for a, b, c in (x, y))
    outside = (across < 0) | (across >= width) | (down < 0) | (down >= height)
    grid = torch.stack([2 * across / width - 1, 2 * down / height - 1], dim=-1)[None].float()

    def move(part: Tensor) -> Tensor:
        moved = F.grid_sample(_as_channels(part), grid, padding_mode="border", align_corners=False)
        return moved.add_(SLACK).masked_fill_(outside, FILL).to(torch.uint8).reshape(part.shape)

    return _in_parts(frames, move)


def _rotate(frames: Tensor, degrees: float) -> Tensor:
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    column, row = frames.shape[-1] / 2, frames.shape[-2] / 2
    return _affine(
        frames,
        x=(cos, -sin, column - cos * column + sin * row),
        y=(sin, cos, row - sin * column - cos * row),
    )


OPERATIONS: Mapping[str, _Law] = MappingProxyType(
    {
        "AutoContrast": _Law(_none, _autocontrast),
        "Equalize": _Law(_none, _equalize),
        "Invert": _Law(_none, lambda frames, _: 255 - frames),
        "Rotate": _Law(_signed(ROTATE_DEGREES), _rotate),
        "PosterizeIncreasing": _Law(lambda level, _: float(4 - int(level * 4)), _posterize),
        "SolarizeIncreasing": _Law(lambda level, _: float(256 - min(256, int(level * 256))), _solarize),
        "SolarizeAdd": _Law(lambda level, _: float(min(128, int(level * 110))), _solarize_add),
        "ColorIncreasing": _Law(_enhance, lambda frames, factor: _in_parts(frames, partial(_colour, factor=factor))),
        "ContrastIncreasing": _Law(_enhance, _contrast),
        "BrightnessIncreasing": _Law(_enhance, _brightness),
        "SharpnessIncreasing": _Law(_enhance, _sharpness),
        "ShearX": _Law(_signed(SHEAR_FACTOR), lambda frames, factor: _affine(frames, x=(1, factor, 0))),
        "ShearY": _Law(_signed(SHEAR_FACTOR), lambda frames, factor: _affine(frames, y=(factor, 1, 0))),
        "TranslateXRel": _Law(
            _signed(TRANSLATE_FRACTION), lambda frames, part: _affine(frames, x=(1, 0, part * frames.shape[-1]))
        ),
        "TranslateYRel": _Law(
            _signed(TRANSLATE_FRACTION), lambda frames, part: _affine(frames, y=(0, 1, part * frames.shape[-2]))
        ),
    }
)
"""timm's increasing set under timm's names. Arguments: degrees, bits kept, threshold, added value, blend factor
(1 is unchanged), shear factor, fraction of the frame's side."""
