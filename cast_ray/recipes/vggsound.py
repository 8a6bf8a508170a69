"""VGG-Sound: CA2ST with sound."""

from __future__ import annotations

from cast_ray.config import RunConfig
from cast_ray.recipes.sound import sound_recipe

__all__ = ["vggsound"]


def vggsound() -> RunConfig:
    """6 clips x 16 workers x 2 passes = 192 clips per update; all 10 s are heard."""
    return sound_recipe(model="ca2st_base_patch16_224", sampling="dense", accumulation=2, audio_frames=1024)
