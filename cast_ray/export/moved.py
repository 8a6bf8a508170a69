"""Where the weights are now that a run had elsewhere."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cast_ray.config import ModelConfig, WeightsConfig
from cast_ray.errors import UserError
from cast_ray.models.named import trains_experts
from cast_ray.weights.hub import locate

__all__ = ["MovedWeights", "found_weights"]


@dataclass(frozen=True, kw_only=True)
class MovedWeights:
    """Where weights are now that a run had elsewhere."""

    spatial: str | None = None
    """Weights of the spatial expert, if not where the run had them."""
    temporal: str | None = None
    """Weights of the temporal expert, likewise."""
    audio: str | None = None
    """Weights of the audio expert, likewise."""
    network: str | None = None
    """The whole network that the run started from, likewise."""
    folder: str | None = None
    """Where weights with names lie, likewise."""

    def given(self) -> dict[str, Any]:
        """What is given, by field."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}


def found_weights(model: ModelConfig, weights: WeightsConfig, moved: MovedWeights) -> WeightsConfig:
    """Where the frozen weights come from; raises `UserError` with the flag to give if they are not there."""
    given = moved.given()
    if trains_experts(model):
        if given:
            raise UserError(
                f"--weights.{next(iter(given))} is given, but the run trained its experts, and the checkpoint holds "
                "all weights; leave it away"
            )
        return WeightsConfig()
    had = weights.sources() | ({} if weights.network is None else {"network": weights.network})
    for name in given:
        if name != "folder" and name not in had:
            raise UserError(f"--weights.{name} is given, but the run read no such weights, only {had}; leave it away")
    now = dataclasses.replace(weights, **given)
    for name, source in (had | {key: value for key, value in given.items() if key != "folder"}).items():
        try:
            locate(source, None if now.folder is None else Path(now.folder))
        except UserError as error:
            raise UserError(
                f"weights.{name}, on which the checkpoint was trained, cannot be found: {error}. If it is elsewhere "
                f"now, give --weights.{name} PATH"
            ) from error
    return now
