"""Which network a configuration describes: built, filled with the experts' weights, frozen."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cast_ray.errors import UserError
from cast_ray.labels import LabelMap

if TYPE_CHECKING:
    from cast_ray.config import ModelConfig, RunConfig, WeightsConfig
    from cast_ray.models.network import Network

__all__ = ["build_network", "check_network"]


def check_network(config: RunConfig, label_map: LabelMap) -> None:
    """Raise the `UserError` that `build_network` would raise on every worker."""
    build_network(config.model, config.weights, label_map, seed=config.seed)


def build_network(model: ModelConfig, weights: WeightsConfig, label_map: LabelMap, *, seed: int) -> tuple[Network, str]:
    """The network on the CPU, and the fingerprint of its frozen weights.

    Whatever is initialised at random is a function of `seed`, so that frozen random experts (in tests) are the same
    in every process.

    Raises:
        UserError: the model or a weights file is unknown, or a weights file does not fit.
    """
    # Imported late: timm takes seconds, and the driver that only describes a run does not need it.
    import timm
    import torch

    from cast_ray.models.zoo import SIZES
    from cast_ray.weights.load import frozen_fingerprint, load_experts

    if model.name not in SIZES:
        raise UserError(f"model.name is '{model.name}'; use one of {sorted(SIZES)}")
    torch.manual_seed(seed)
    network = timm.create_model(
        model.name,
        num_classes=label_map.num_classes,
        img_size=model.image_size,
        num_frames=model.num_frames,
        drop_path_rate=model.drop_path,
    )
    load_experts(network, **{expert: Path(path) for expert, path in weights.paths().items()})
    network.freeze(train_experts=model.train_experts)
    return network, frozen_fingerprint(network)
