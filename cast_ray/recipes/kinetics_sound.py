"""Kinetics-Sounds: CA2ST with sound."""

from __future__ import annotations

from cast_ray.config import RunConfig
from cast_ray.recipes.sound import sound_recipe

__all__ = ["kinetics_sound"]


def kinetics_sound() -> RunConfig:
    """As VGG-Sound, whose clips also last 10 s; nothing is known of the authors' run but the sampling."""
    return sound_recipe(model="ca2st_base_patch16_224", sampling="dense", accumulation=2, audio_frames=1024)
