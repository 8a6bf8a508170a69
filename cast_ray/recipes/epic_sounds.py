"""EPIC-SOUNDS: CA2ST with sound."""

from __future__ import annotations

from cast_ray.config import RunConfig
from cast_ray.recipes.sound import sound_recipe

__all__ = ["epic_sounds"]


def epic_sounds() -> RunConfig:
    """6 clips x 16 workers x 4 passes = 384 clips per update; sounds are short, 4 s are heard."""
    # 4 passes and the clock: the folder of the authors' best run. Their notebook says 2 passes.
    return sound_recipe(model="ca2st_base_patch16_224_clock", sampling="uniform", accumulation=4, audio_frames=400)
