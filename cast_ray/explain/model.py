"""How a trained model computes in this process, without Ray, and with its network in reach."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from cast_ray.data.inputs import InputMaker
from cast_ray.data.loader import ClipLoader, clip_loader
from cast_ray.data.shards import ShardedDataset
from cast_ray.data.views import CentreView, frame_sampling
from cast_ray.evaluation.device import Device, chosen_device
from cast_ray.evaluation.trained import TrainedModel, model_at
from cast_ray.models.network import Network
from cast_ray.weights.moved import MovedWeights

__all__ = ["OpenedNetwork", "centre_loader", "model_here", "open_network"]


@dataclass(frozen=True, kw_only=True)
class OpenedNetwork:
    """A trained network on its device, in float32 and evaluation mode."""

    trained: TrainedModel
    network: Network
    device: torch.device

    def inputs(self, batch: Mapping[str, NDArray[Any]]) -> dict[str, Tensor]:
        """A batch of `cast_ray.data.loader.ClipLoader` as the network takes it."""
        return InputMaker(self.network.spec, self.device).evaluation(batch)


def model_here(place: str, *, device: Device = "auto", moved: MovedWeights | None = None) -> TrainedModel:
    """The model at a path or URI, set to compute in this process.

    Args:
        place: as `cast_ray.evaluation.trained.model_at`.
        device: where it computes; auto takes a GPU if there is one. On a CPU it computes in float32.
        moved: where the run's weights are now.

    Raises:
        UserError: there is no model, or no GPU.
    """
    on_gpu = chosen_device(device).type == "cuda"
    model = model_at(place, moved)
    scale = dataclasses.replace(
        model.config.scale,
        use_gpu=on_gpu,
        cpus_per_worker=float(torch.get_num_threads()),
        precision=model.config.scale.precision if on_gpu else "float32",
    )
    return model.used(dataclasses.replace(model.config, scale=scale))


def open_network(trained: TrainedModel) -> OpenedNetwork:
    """The network itself; `UserError` if weights of experts are gone or not those of the training."""
    device = torch.device("cuda" if trained.config.scale.use_gpu else "cpu")
    return OpenedNetwork(trained=trained, network=trained.load(trained.config).to(device), device=device)


def centre_loader(model: TrainedModel, dataset: ShardedDataset) -> ClipLoader:
    """Loads what the model takes of a dataset's clips, in the one view of validation."""
    return clip_loader(dataset, model.config, CentreView(sampling=frame_sampling(model.config)))
