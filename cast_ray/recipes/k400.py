"""Kinetics-400: the published CAST recipe."""

from __future__ import annotations

from cast_ray.config import RunConfig
from cast_ray.recipes.cast import cast_recipe

__all__ = ["k400"]


def k400() -> RunConfig:
    """2 nodes x 8 GPUs: 6 clips x 16 workers x 6 passes = 576 clips per update, so a peak of 2.25e-3."""
    return cast_recipe(
        sampling="dense",
        flip=0.5,
        mixup_probability=0.5,
        drop_path=0.2,
        epochs=70,
        accumulation=6,
        temporal_views=5,
    )
