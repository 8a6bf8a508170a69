"""Which network a configuration describes: built, filled with the experts' weights, frozen."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cast_ray.labels import LabelMap
from cast_ray.models.named import spec_of, trains_experts

if TYPE_CHECKING:
    from cast_ray.config import ModelConfig, RunConfig, WeightsConfig
    from cast_ray.models.network import Network

__all__ = ["build_network", "check_network"]


def check_network(config: RunConfig, label_map: LabelMap) -> list[str]:
    """Raise the `UserError` that `build_network` would raise on every worker.

    Returns:
        What was read from where, and what was changed on the way, in words.
    """
    return _build(config.model, config.weights, label_map, seed=config.seed)[1]


def build_network(model: ModelConfig, weights: WeightsConfig, label_map: LabelMap, *, seed: int) -> tuple[Network, str]:
    """The network on the CPU, and the fingerprint of its frozen weights.

    Whatever is initialised at random is a function of `seed`, so that frozen random experts (in tests) are the same
    in every process.

    Raises:
        UserError: the model or a weights file is unknown, or a weights file does not fit.
    """
    from cast_ray.weights.load import frozen_fingerprint

    network, _ = _build(model, weights, label_map, seed=seed)
    return network, frozen_fingerprint(network)


def _build(model: ModelConfig, weights: WeightsConfig, label_map: LabelMap, *, seed: int) -> tuple[Network, list[str]]:
    # Imported late: timm takes seconds, and the driver that only describes a run does not need it.
    import torch

    from cast_ray.models.assemble import assemble
    from cast_ray.weights.load import load_experts, load_network

    spec = spec_of(model)
    torch.manual_seed(seed)
    network = assemble(spec, label_map.num_classes)
    folder = None if weights.folder is None else Path(weights.folder)
    notes = []
    if weights.network is not None:
        notes += load_network(network, weights.network, folder=folder, keep_head=weights.new_head)
    notes += load_experts(
        network,
        weights.sources(),
        folder=folder,
        final_norm=weights.temporal_norm,
        copy_head=weights.copy_head,
    )
    network.freeze(train_experts=trains_experts(model))
    network.set_grad_checkpointing(model.checkpoint_activations)
    return network, notes
