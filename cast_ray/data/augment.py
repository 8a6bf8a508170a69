"""How training clips are varied after decoding: RandAugment, flip and normalisation, on whichever device they are.

Shapes: B clips, T frames, H rows, W columns. Frames are uint8 RGB [B, T, H, W, 3] until they are normalised to
floating point [B, 3, T, H, W].

Sources: RandAugment (arXiv 1909.13719) with the operations, magnitude laws and configuration strings of timm's
"increasing" set, which CAST was trained with; compared with timm operation by operation in the tests.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as V

from cast_ray.data.randomness import rng_for
from cast_ray.errors import UserError
from cast_ray.models.spec import VideoInput

__all__ = [
    "OPERATIONS",
    "Operation",
    "RandAugmentSpec",
    "TrainAugment",
    "apply_operations",
    "draw_operations",
    "flip_clips",
    "normalise",
]

FILL = 128
"""Grey that fills what moves in from outside the frame."""
MAGNITUDE_SCALE = 10.0
"""Magnitudes run from 0 to this."""
TRANSLATE_FRACTION = 0.45
ROTATE_DEGREES = 30.0
SHEAR_FACTOR = 0.3


def normalise(frames: Tensor, video: VideoInput) -> Tensor:
    """uint8 frames [B, T, H, W, 3] to float32 [B, 3, T, H, W] with the network's mean and deviation."""
    mean = torch.tensor(video.mean, device=frames.device).view(3, 1, 1, 1)
    std = torch.tensor(video.std, device=frames.device).view(3, 1, 1, 1)
    pixels = frames.permute(0, 4, 1, 2, 3).to(torch.float32, memory_format=torch.contiguous_format)
    return pixels.div_(255).sub_(mean).div_(std)


def flip_clips(frames: Tensor, mask: Tensor) -> Tensor:
    """Mirror the clips [B, T, H, W, 3] where the boolean `mask` [B] is set: left becomes right, in all frames."""
    return torch.where(mask.view(-1, 1, 1, 1, 1), frames.flip(3), frames)


@dataclass(frozen=True, kw_only=True)
class RandAugmentSpec:
    """The parameters of RandAugment with timm's "increasing" operations."""

    magnitude: float = 10.0
    """Mean strength, 0 to 10."""
    layers: int = 2
    """Operations drawn per clip, with repetition."""
    probability: float = 0.5
    """Chance with which each drawn operation is applied."""
    magnitude_std: float = 0.0
    """Standard deviation of the strength, drawn anew for each operation."""
    magnitude_max: float = MAGNITUDE_SCALE
    """Largest strength."""

    @classmethod
    def parse(cls, text: str) -> RandAugmentSpec:
        """Read timm's notation, such as "rand-m7-n4-mstd0.5-inc1".

        Sections: m magnitude, n layers, p probability, mstd and mmax as the fields above; inc1 is required.

        Raises:
            UserError: a section is unknown, not a number or out of range, or inc1 is missing.
        """
        head, *sections = text.split("-")
        known = {"m": "magnitude", "n": "layers", "p": "probability", "mstd": "magnitude_std", "mmax": "magnitude_max"}
        values: dict[str, float] = {}
        for section in sections:
            match = re.fullmatch(r"([a-z]+)(\d+(?:\.\d+)?)", section)
            if head != "rand" or match is None or match[1] not in {*known, "inc"}:
                raise UserError(
                    f"RandAugment '{text}': section '{section}' is not understood; write it like "
                    "'rand-m7-n4-mstd0.5-inc1' (sections: m, n, p, mstd, mmax, inc)"
                )
            values[match[1]] = float(match[2])
        if values.pop("inc", 0.0) != 1:
            raise UserError(f"RandAugment '{text}': only the increasing operations are available; add '-inc1'")
        fields = {known[name]: value for name, value in values.items()}
        layers = fields.pop("layers", 2.0)
        spec = cls(layers=int(layers), **fields)
        if not (layers == spec.layers and 0 <= spec.probability <= 1 and spec.magnitude_std <= 100):
            raise UserError(f"RandAugment '{text}': n must be whole, p in [0, 1] and mstd at most 100")
        return spec


class Operation(NamedTuple):
    """One operation with its argument, in the unit of its magnitude law (0.0 where there is none)."""

    name: str
    argument: float


def draw_operations(spec: RandAugmentSpec, rng: np.random.Generator) -> list[Operation]:
    """The operations for one clip, in the order in which they act; those that the probability drops are left out."""
    names = list(OPERATIONS)
    drawn = []
    for index in rng.integers(len(names), size=spec.layers):
        skipped = rng.random() >= spec.probability
        magnitude = min(max(rng.normal(spec.magnitude, spec.magnitude_std), 0.0), spec.magnitude_max)
        sign = 1.0 if rng.random() < 0.5 else -1.0
        if not skipped:
            name = names[index]
            drawn.append(Operation(name, OPERATIONS[name].argument(magnitude / MAGNITUDE_SCALE, sign)))
    return drawn


def apply_operations(frames: Tensor, operations: Sequence[Operation]) -> Tensor:
    """Apply the operations to all frames of one clip; uint8 [T, 3, H, W] in and out, on any device."""
    for name, argument in operations:
        frames = OPERATIONS[name].apply(frames, argument)
    return frames


@dataclass(frozen=True, kw_only=True)
class TrainAugment:
    """RandAugment, then flip, keyed by (seed, epoch, clip id)."""

    seed: int
    randaugment: RandAugmentSpec | None
    """None: off."""
    flip_probability: float
    """0.0 where left and right carry meaning, as in Something-Something-V2."""

    def __call__(self, frames: Tensor, clip_ids: Sequence[str], epoch: int) -> Tensor:
        """uint8 frames [B, T, H, W, 3] of the clips named `clip_ids` [B], varied."""
        flips, clips = [], []
        for clip, clip_id in zip(frames, clip_ids, strict=True):
            rng = rng_for(self.seed, epoch, clip_id, "augment")
            flips.append(bool(rng.random() < self.flip_probability))
            operations = draw_operations(self.randaugment, rng) if self.randaugment else []
            clips.append(apply_operations(clip.permute(0, 3, 1, 2), operations).permute(0, 2, 3, 1))
        mask = torch.tensor(flips, device=frames.device)
        return flip_clips(torch.stack(clips), mask)


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


def _affine(frames: Tensor, *, translate: tuple[float, float] = (0, 0), shear: tuple[float, float] = (0, 0)) -> Tensor:
    # Shears keep the upper left corner in place, as PIL's coefficients (1, factor, 0, 0, 1, 0) do.
    return V.affine(
        frames,
        angle=0.0,
        translate=list(translate),
        scale=1.0,
        shear=[math.degrees(math.atan(factor)) for factor in shear],
        interpolation=InterpolationMode.BILINEAR,
        fill=FILL,
        center=[0.0, 0.0],
    )


def _rotate(frames: Tensor, degrees: float) -> Tensor:
    return V.rotate(frames, degrees, interpolation=InterpolationMode.BILINEAR, fill=FILL)


def _posterize(frames: Tensor, bits: float) -> Tensor:
    # The law reaches 0 bits at full strength, which would make the clip black; timm raises an error there.
    return V.posterize(frames, max(1, int(bits)))


def _solarize(frames: Tensor, threshold: float) -> Tensor:
    return torch.where(frames < threshold, frames, 255 - frames)


def _solarize_add(frames: Tensor, add: float) -> Tensor:
    # The added value is at most 128 and the dark pixels are below 128, so the sum fits into uint8.
    return torch.where(frames < 128, frames + int(add), frames)


OPERATIONS: Mapping[str, _Law] = MappingProxyType(
    {
        "AutoContrast": _Law(_none, lambda frames, _: V.autocontrast(frames)),
        "Equalize": _Law(_none, lambda frames, _: V.equalize(frames)),
        "Invert": _Law(_none, lambda frames, _: V.invert(frames)),
        "Rotate": _Law(_signed(ROTATE_DEGREES), _rotate),
        "PosterizeIncreasing": _Law(lambda level, _: float(4 - int(level * 4)), _posterize),
        "SolarizeIncreasing": _Law(lambda level, _: float(256 - min(256, int(level * 256))), _solarize),
        "SolarizeAdd": _Law(lambda level, _: float(min(128, int(level * 110))), _solarize_add),
        "ColorIncreasing": _Law(_enhance, V.adjust_saturation),
        "ContrastIncreasing": _Law(_enhance, V.adjust_contrast),
        "BrightnessIncreasing": _Law(_enhance, V.adjust_brightness),
        "SharpnessIncreasing": _Law(_enhance, V.adjust_sharpness),
        "ShearX": _Law(_signed(SHEAR_FACTOR), lambda frames, factor: _affine(frames, shear=(factor, 0))),
        "ShearY": _Law(_signed(SHEAR_FACTOR), lambda frames, factor: _affine(frames, shear=(0, factor))),
        "TranslateXRel": _Law(
            _signed(TRANSLATE_FRACTION),
            lambda frames, part: _affine(frames, translate=(-part * frames.shape[-1], 0)),
        ),
        "TranslateYRel": _Law(
            _signed(TRANSLATE_FRACTION),
            lambda frames, part: _affine(frames, translate=(0, -part * frames.shape[-2])),
        ),
    }
)
"""timm's increasing set under timm's names. Arguments: degrees, bits kept, threshold, added value, blend factor
(1 is unchanged), shear factor, fraction of the frame's side."""
