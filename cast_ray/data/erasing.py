"""Which part of a training clip is hidden: random erasing, one box for all frames, after normalisation.

Shapes: B clips, T frames, H rows, W columns; clips are floating point [B, 3, T, H, W].

Source: Random Erasing (arXiv 1708.04896) with the draws of timm's `RandomErasing`, compared with it in the tests. As in
the published video recipes the box stays where it is and the noise changes from frame to frame.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from cast_ray.data.randomness import rng_for

__all__ = ["EraseMode", "RandomErasing"]

EraseMode = Literal["pixel", "const"]

NARROWEST = 0.3
"""Smallest height / width of a box, and smallest width / height."""
ATTEMPTS = 10
"""Boxes that are drawn until one is smaller than the frame."""


@dataclass(frozen=True, kw_only=True)
class RandomErasing:
    """Random erasing, keyed by (seed, epoch, clip id, view)."""

    seed: int
    probability: float
    mode: EraseMode
    """pixel: noise of mean 0 and deviation 1, drawn for every pixel; const: 0, the mean colour of the data."""
    area: tuple[float, float]
    """Smallest and largest share of the frame's area that a box has."""

    def __call__(self, clips: Tensor, clip_ids: Sequence[str], views: Sequence[int], epoch: int) -> None:
        """Erase a box from some of the `clips` [B, 3, T, H, W], in place; `clip_ids` and `views` are [B].

        Noise comes from a generator on the clips' device, seeded per clip: it is the same whichever worker draws it,
        but a GPU's is not a CPU's.
        """
        generator = torch.Generator(clips.device)
        for clip, clip_id, view in zip(clips, clip_ids, views, strict=True):
            rng = rng_for(self.seed, epoch, clip_id, "erase", view)
            if rng.random() >= self.probability:
                continue
            rows, columns = self._box(clip.shape[-2], clip.shape[-1], rng)
            hidden = clip[..., rows, columns]
            if self.mode == "const":
                hidden.zero_()
            else:
                hidden.normal_(generator=generator.manual_seed(int(rng.integers(2**63))))

    def _box(self, height: int, width: int, rng: np.random.Generator) -> tuple[slice, slice]:
        """Rows and columns of a box; an empty one if none is found that fits."""
        for _ in range(ATTEMPTS):
            area = rng.uniform(*self.area) * height * width
            ratio = math.exp(rng.uniform(math.log(NARROWEST), -math.log(NARROWEST)))
            rows, columns = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if rows < height and columns < width:
                top, left = int(rng.integers(height - rows + 1)), int(rng.integers(width - columns + 1))
                return slice(top, top + rows), slice(left, left + columns)
        return slice(0), slice(0)
