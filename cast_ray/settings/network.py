"""Settings of the network: which one, and where its weights come from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from cast_ray.checks import require, require_positive
from cast_ray.models.options import ModelOptions

__all__ = ["ModelConfig", "WeightsConfig"]

RANDOM = "random"
"""The value of a weights field that asks for a randomly initialised expert."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The network and its input size."""

    name: str = "cast_base_patch16_224"
    """Name of the model, as timm.create_model knows it."""
    num_frames: int | None = None
    """Frames per view; frame-wise experts of CAST see every second one. None: the model's own number."""
    image_size: int | None = None
    """Height and width of a view, in pixels. None: the model's own size."""
    drop_path: float = 0.0
    """Stochastic-depth rate of the last block; it grows linearly with depth."""
    train_experts: bool | None = None
    """Train the experts too, instead of only adapters, exchanges, last norms and heads. None: if none has adapters."""
    checkpoint_activations: bool = False
    """Compute the inside of each block again in the backward pass: far less memory, about a third more time."""
    options: ModelOptions = field(default_factory=ModelOptions)
    """Departures from the named model, such as the papers' ablations."""

    def __post_init__(self) -> None:
        require(0 <= self.drop_path < 1, f"model.drop-path is {self.drop_path}; give 0 <= rate < 1")
        for name, value in (("image-size", self.image_size), ("num-frames", self.num_frames)):
            if value is not None:
                require_positive(f"model.{name}", value)


@dataclass(frozen=True, kw_only=True)
class WeightsConfig:
    """Where the experts come from: a checkpoint file, a name that `cast-ray weights list` shows, or 'random'."""

    spatial: str | None = None
    """Weights of the spatial expert, for example ViT-B-16/openai or /shared/clip_vit_b16.safetensors."""
    temporal: str | None = None
    """Weights of the temporal expert, for example MCG-NJU/videomae-base or /shared/videomae_ssv2_b16.pth."""
    audio: str | None = None
    """Weights of the audio expert, for example MIT/ast-finetuned-audioset-10-10-0.4593."""
    network: str | None = None
    """A whole network to start from: a released CAST checkpoint, or one of our own; instead of the experts."""
    new_head: bool = False
    """With `network`: start with new classifiers, for other classes than the network was trained for."""
    folder: str | None = None
    """Where weights with names lie; None: the folder of CAST_RAY_WEIGHTS, else ~/.cache/cast_ray/weights."""
    temporal_norm: Literal["load", "identity"] = "load"
    """Final norm of a VideoMAE expert: the file's, or an identity as in the CAST authors' code."""
    copy_head: bool = False
    """Copy the classifier of a fine-tuned VideoMAE in the temporal role where it fits, as CAST's authors do."""

    def __post_init__(self) -> None:
        if self.network is not None:
            require(
                not self.sources(),
                f"weights.network '{self.network}' and weights of single experts {self.sources()} are given; "
                "leave one of them away",
            )

    def given(self) -> dict[str, str]:
        """What is asked for, 'random' included, by expert."""
        values = {"spatial": self.spatial, "temporal": self.temporal, "audio": self.audio}
        return {expert: value for expert, value in values.items() if value is not None}

    def sources(self) -> dict[str, str]:
        """The files or names to load, by expert."""
        return {expert: value for expert, value in self.given().items() if value != RANDOM}
