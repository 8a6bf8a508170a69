"""Something-Something-V2: the published CAST recipe."""

from __future__ import annotations

from cast_ray.config import RunConfig
from cast_ray.recipes.cast import cast_recipe

__all__ = ["ssv2"]


def ssv2() -> RunConfig:
    """2 nodes x 8 GPUs: 6 clips x 16 workers x 4 passes = 384 clips per update, so a peak of 1.5e-3."""
    return cast_recipe(
        sampling="uniform",
        flip=0.0,  # "moving left to right" must stay so
        mixup_probability=0.9,
        drop_path=0.3,
        epochs=50,
        accumulation=4,
        temporal_views=2,
    )
