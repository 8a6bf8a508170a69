"""How training clips are varied after decoding: RandAugment, flip and normalisation, on whichever device they are.

Shapes: B clips, T frames, H rows, W columns. Frames are uint8 RGB [B, T, H, W, 3] until they are normalised to
floating point [B, 3, T, H, W].

Sources: RandAugment (arXiv 1909.13719) with timm's configuration strings and its "increasing" set, which CAST was
trained with; the draws are compared with timm's in the tests.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cast_ray.data.operations import MAGNITUDE_SCALE, OPERATIONS, Operation, apply_operations
from cast_ray.data.randomness import rng_for
from cast_ray.errors import UserError
from cast_ray.models.spec import VideoInput

__all__ = ["RandAugmentSpec", "TrainAugment", "draw_operations", "normalise"]


def normalise(frames: Tensor, video: VideoInput) -> Tensor:
    """uint8 frames [B, T, H, W, 3] to float32 [B, 3, T, H, W] with the network's mean and deviation."""
    mean = torch.tensor(video.mean, device=frames.device).view(3, 1, 1, 1)
    std = torch.tensor(video.std, device=frames.device).view(3, 1, 1, 1)
    pixels = frames.permute(0, 4, 1, 2, 3).to(torch.float32, memory_format=torch.contiguous_format)
    return pixels.sub_(255 * mean).div_(255 * std)


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


@dataclass(frozen=True, kw_only=True)
class TrainAugment:
    """RandAugment, then flip, keyed by (seed, epoch, clip id, view)."""

    seed: int
    randaugment: RandAugmentSpec | None
    """None: off."""
    flip_probability: float
    """0.0 where left and right carry meaning, as in Something-Something-V2."""

    def __call__(self, frames: Tensor, clip_ids: Sequence[str], views: Sequence[int], epoch: int) -> Tensor:
        """uint8 frames [B, T, H, W, 3] of the `views` [B] of the clips named `clip_ids` [B], varied."""
        planes = frames.permute(0, 1, 4, 2, 3)
        clips = [
            self._vary(clip, rng_for(self.seed, epoch, clip_id, "augment", view))
            for clip, clip_id, view in zip(planes, clip_ids, views, strict=True)
        ]
        return torch.stack(clips).permute(0, 1, 3, 4, 2)

    def _vary(self, clip: Tensor, rng: np.random.Generator) -> Tensor:
        flip = rng.random() < self.flip_probability
        operations = draw_operations(self.randaugment, rng) if self.randaugment else []
        if operations:
            clip = apply_operations(clip.contiguous(), operations)
        return clip.flip(-1) if flip else clip
