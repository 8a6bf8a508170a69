"""What the recipes of CA2ST and CAVA on sight and sound have in common.

The papers' own table is not available. Source: arguments in the analysis notebook and names of run folders in the
authors' development repository (joohyunchang/Bida), which docs/recipes.md marks D; what they leave open is as in CAST.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from cast_ray.config import AudioConfig, RunConfig
from cast_ray.models.options import ModelOptions
from cast_ray.recipes.cast import cast_recipe

__all__ = ["sound_recipe"]


def sound_recipe(
    *, model: str, sampling: Literal["uniform", "dense"], accumulation: int, audio_frames: int
) -> RunConfig:
    """A run on 2 nodes x 8 GPUs; the arguments are what differs between datasets.

    Args:
        model: name of a model that hears.
        sampling: of the frames.
        accumulation: passes of 6 clips x 16 workers per update.
        audio_frames: columns of the spectrogram, 10 ms each.
    """
    recipe = cast_recipe(
        sampling=sampling,
        flip=0.5,  # not in D; as in CAST
        mixup_probability=0.9,
        drop_path=0.2,
        epochs=50,
        accumulation=accumulation,
        temporal_views=2,
    )
    options = ModelOptions(audio_frames=audio_frames)
    return dataclasses.replace(
        recipe,
        model=dataclasses.replace(recipe.model, name=model, options=options),
        optim=dataclasses.replace(recipe.optim, base_lr=5e-4, layer_decay=0.8),
        audio=AudioConfig(
            time_masks=2,
            time_mask_columns=70,
            frequency_masks=2,
            frequency_mask_bins=20,
            mixing="cutmix",  # the headline runs; others mix linearly
        ),
    )
