"""What a run has to do: the work of the model and of the data for every clip."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from cast_ray.config import RunConfig
from cast_ray.models.costs import Costs, count_costs, count_step
from cast_ray.models.named import spec_of, trains_experts
from cast_ray.models.spec import AUDIO, VIDEO
from cast_ray.planning.activations import Activations, trace_activations
from cast_ray.planning.datasets import Dataset

__all__ = ["Work", "work_of"]

SAMPLE_RATE, COLUMNS_PER_SECOND, SAMPLE_BYTES = 16_000, 100, 2
"""Of sound on its way to the training device: int16 samples, and the columns of a spectrogram that come of them."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What one clip, or the model as a whole, costs."""

    costs: Costs
    activations: Activations
    step_multiply_adds: int
    """Of a clip's forward and backward pass, with what checkpointed activations compute again."""
    frames: int
    """Sampled of every clip; 0 if the model only hears."""
    sound: bool
    """Whether the model hears."""
    decoded_bytes: int
    """Of a clip on its way from the decoder to the training worker."""


def work_of(config: RunConfig, dataset: Dataset) -> Work:
    """Count and trace the network of a run; takes a few seconds and no memory for weights.

    Raises:
        UserError: the model is unknown or its sizes do not fit together.
    """
    spec, train_experts = spec_of(config.model), trains_experts(config.model)
    channels, frames, height, width = spec.video.shape
    sees, hears = VIDEO in spec.needs, AUDIO in spec.needs
    samples = spec.audio.frames * SAMPLE_RATE // COLUMNS_PER_SECOND
    return Work(
        costs=count_costs(spec, dataset.num_classes, train_experts=train_experts),
        activations=trace_activations(
            spec,
            dataset.num_classes,
            train_experts=train_experts,
            dtype=torch.float32 if config.scale.precision == "float32" else torch.bfloat16,
        ),
        step_multiply_adds=count_step(
            spec,
            dataset.num_classes,
            train_experts=train_experts,
            checkpoint_activations=config.model.checkpoint_activations,
        ),
        frames=frames if sees else 0,
        sound=hears,
        decoded_bytes=sees * channels * frames * height * width + hears * samples * SAMPLE_BYTES,
    )
