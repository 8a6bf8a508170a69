"""A recipe with another model than its own, as --model.name asks for it."""

from __future__ import annotations

import dataclasses

from cast_ray.config import ModelConfig, RunConfig
from cast_ray.models.named import spec_of
from cast_ray.models.spec import AUDIO

__all__ = ["with_model"]


def with_model(recipe: RunConfig, name: str) -> RunConfig:
    """The recipe with the model of this name; the length of a spectrogram is dropped for models that hear nothing.

    Raises:
        UserError: there is no such model.
    """
    options = recipe.model.options
    if AUDIO not in spec_of(ModelConfig(name=name)).experts:
        options = dataclasses.replace(options, audio_frames=None)
    return dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, name=name, options=options))
