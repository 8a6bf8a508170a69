"""UCF-101: CA2ST, which hears the clips that have a sound track."""

from __future__ import annotations

from cast_ray.config import RunConfig
from cast_ray.recipes.sound import sound_recipe

__all__ = ["ucf101"]


def ucf101() -> RunConfig:
    """As VGG-Sound; nothing is known of the authors' run but the sampling."""
    return sound_recipe(model="ca2st_base_patch16_224", sampling="dense", accumulation=2, audio_frames=1024)
