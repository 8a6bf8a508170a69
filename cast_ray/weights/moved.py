"""Where weights are now that a run had elsewhere."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cast_ray.config import ModelConfig, WeightsConfig
from cast_ray.errors import UserError
from cast_ray.models.named import trains_experts
from cast_ray.weights.hub import locate

__all__ = ["MovedWeights", "absolute_paths", "check_found", "moved_to"]


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

    def check_unused(self, why: str) -> None:
        """Raise `UserError` if anything is given; `why` says what makes it useless."""
        for name in self.given():
            raise UserError(f"--weights.{name} is given, but {why}; leave it away")


def moved_to(model: ModelConfig, weights: WeightsConfig, moved: MovedWeights) -> WeightsConfig:
    """Where a run's frozen weights are now, as paths that do not depend on the working folder.

    Raises:
        UserError: something is given that the run did not read.
    """
    if trains_experts(model):
        moved.check_unused("the run trained its experts, and the checkpoint holds all weights")
    had = _sources(weights)
    for name in moved.given():
        if name != "folder" and name not in had:
            raise UserError(f"--weights.{name} is given, but the run read no such weights, only {had}; leave it away")
    return absolute_paths(dataclasses.replace(weights, **moved.given()))


def check_found(weights: WeightsConfig) -> None:
    """Raise `UserError` with the flag to give if weights are not where they should be; names are fetched."""
    folder = None if weights.folder is None else Path(weights.folder)
    for name, source in _sources(weights).items():
        try:
            locate(source, folder)
        except UserError as error:
            raise UserError(
                f"weights.{name}, on which the checkpoint was trained, cannot be found: {error}. If it is elsewhere "
                f"now, give --weights.{name} PATH"
            ) from error


def absolute_paths(weights: WeightsConfig) -> WeightsConfig:
    """The same weights for processes in other working folders."""
    asked = _sources(weights) | ({} if weights.folder is None else {"folder": weights.folder})
    paths = {name: Path(value).expanduser() for name, value in asked.items()}
    # Whatever does not exist is a name, except the folder, which weights may yet be fetched into.
    found: dict[str, Any] = {
        name: str(path.absolute()) for name, path in paths.items() if name == "folder" or path.exists()
    }
    return dataclasses.replace(weights, **found)


def _sources(weights: WeightsConfig) -> dict[str, str]:
    return weights.sources() | ({} if weights.network is None else {"network": weights.network})
