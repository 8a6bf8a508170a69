"""EPIC-KITCHENS-100, verbs and nouns: the published CAST recipe, and CA2ST's with sound."""

from __future__ import annotations

from cast_ray.config import RunConfig
from cast_ray.recipes.cast import cast_recipe
from cast_ray.recipes.sound import sound_recipe

__all__ = ["ek100", "ek100_sound"]


def ek100() -> RunConfig:
    """2 nodes x 8 GPUs: 6 clips x 16 workers x 4 passes = 384 clips per update, so a peak of 1.5e-3."""
    return cast_recipe(
        sampling="uniform",
        flip=0.5,
        mixup_probability=0.9,
        drop_path=0.2,
        epochs=50,
        accumulation=4,
        temporal_views=2,
    )


def ek100_sound() -> RunConfig:
    """CA2ST, with exchanges of sound that know the time, as the authors' runs on the EPIC datasets."""
    return sound_recipe(model="ca2st_base_patch16_224_clock", sampling="uniform", accumulation=2, audio_frames=400)
