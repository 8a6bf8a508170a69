"""Which trained model predicts: a checkpoint, the best one of a run, or an exported file, with its settings."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.fs as pafs
import torch

from cast_ray.config import DataConfig, RunConfig, ScaleConfig, TestConfig, WeightsConfig
from cast_ray.data.storage import absolute, filesystem, retried
from cast_ray.data.views import TestViews, frame_sampling
from cast_ray.export.fetch import find_checkpoint, local_weights
from cast_ray.export.file import SUFFIX
from cast_ray.export.load import exported_contents, load_exported
from cast_ray.labels import LabelMap
from cast_ray.models.named import trains_experts
from cast_ray.training.build import build_network
from cast_ray.training.checkpoint import load_weights, read_state, state_at
from cast_ray.weights.moved import MovedWeights, check_found, moved_to

if TYPE_CHECKING:
    import ray.train

    from cast_ray.models.network import Network

__all__ = ["TrainedModel", "check_weights", "model_at", "model_of"]


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """A trained model that any process can load, and how it is used."""

    place: str
    """Where it is, for messages."""
    config: RunConfig
    """`model`, `data` and `test` say what it is given, `scale` on what it runs."""
    label_map: LabelMap
    fingerprint: str
    """Of the trained weights."""
    frozen: str
    """Fingerprint of the experts' frozen weights."""
    dataset: str
    """Fingerprint of the dataset that it was trained on."""
    tensors: str | None = None
    """Fingerprint of all tensors of an exported file, which may be rounded; None: a checkpoint."""
    load: Callable[[RunConfig], Network]
    """The network of a configuration, on the CPU, in float32 and evaluation mode; may be sent to other processes.

    `UserError` if weights are missing, damaged, or not those of the training."""

    @property
    def views(self) -> TestViews:
        """The views of a clip."""
        test = self.config.test
        return TestViews(
            sampling=frame_sampling(self.config), temporal_views=test.temporal_views, spatial_crops=test.spatial_crops
        )

    @property
    def settings(self) -> dict[str, Any]:
        """What predictions depend on beside the clips, as plain values."""
        sampling = self.views.sampling
        exported = {} if self.tensors is None else {"tensors": self.tensors}
        return {
            "checkpoint": self.fingerprint,
            **exported,
            "label_map": self.label_map.fingerprint,
            "model": self.config.model.name,
            "sampling": sampling.kind,
            "stride": sampling.stride,
            "num_frames": sampling.num_frames,
            "image_size": sampling.size,
            "temporal_views": self.views.temporal_views,
            "spatial_crops": self.views.spatial_crops,
            "view_mean": self.config.test.view_mean,
            "precision": self.config.scale.precision,
        }

    def used(self, config: RunConfig) -> TrainedModel:
        """The same model with other settings of how it is used."""
        return dataclasses.replace(self, config=config)


def model_at(place: str | Path, moved: MovedWeights | None = None) -> TrainedModel:
    """The one way to open a trained model; its tensors are read by `TrainedModel.load`.

    Args:
        place: path or URI of a checkpoint, of a run, whose best checkpoint is taken, or of a .safetensors file that
            `cast-ray export` has written.
        moved: where the run's weights are now.

    Raises:
        UserError: it is none of these, cannot be read, or has no use for weights that are given.
    """
    place, moved = absolute(str(place)), moved or MovedWeights()  # replicas work in other folders
    storage, path = filesystem(place)
    if path.endswith(SUFFIX) and retried(lambda: storage.get_file_info(path), what=place).type == pafs.FileType.File:
        moved.check_unused(f"{place} holds all weights")
        return _exported(place)
    return _of_checkpoint(*find_checkpoint(place), moved)


def model_of(checkpoint: ray.train.Checkpoint) -> TrainedModel:
    """The model of a checkpoint; its weights are the averaged ones if the run keeps a moving average."""
    return _of_checkpoint(checkpoint.filesystem, checkpoint.path, MovedWeights())


def check_weights(config: RunConfig) -> None:
    """Raise `UserError`, before minutes of work, if the frozen weights that `load` will need are not there."""
    if not trains_experts(config.model):
        check_found(config.weights)


def _of_checkpoint(storage: pafs.FileSystem, folder: str, moved: MovedWeights) -> TrainedModel:
    state = retried(lambda: state_at(storage, folder), what=folder)
    config = RunConfig.from_dict(state.config)
    return TrainedModel(
        place=folder,
        config=dataclasses.replace(config, weights=moved_to(config.model, config.weights, moved)),
        label_map=state.label_map,
        fingerprint=state.fingerprint,
        frozen=state.frozen,
        dataset=state.dataset,
        load=_CheckpointNetwork(storage, folder),
    )


def _exported(place: str) -> TrainedModel:
    contents = exported_contents(place)
    prints, views = contents.fingerprints, contents.views
    return TrainedModel(
        place=place,
        # On one CPU worker, as the file does not know on what it will run.
        config=RunConfig(
            model=contents.model,
            data=DataConfig(sampling=views.sampling.kind, stride=views.sampling.stride),
            scale=ScaleConfig(num_workers=1, use_gpu=False, cpus_per_worker=1.0, precision="float32"),
            test=TestConfig(
                temporal_views=views.temporal_views, spatial_crops=views.spatial_crops, view_mean=contents.view_mean
            ),
        ),
        label_map=contents.label_map,
        fingerprint=prints.checkpoint,
        frozen=prints.frozen,
        dataset=prints.dataset,
        tensors=prints.tensors,
        load=_ExportedNetwork(place),
    )


@dataclass(frozen=True)
class _CheckpointNetwork:
    storage: pafs.FileSystem
    folder: str

    def __call__(self, config: RunConfig) -> Network:
        check_weights(config)
        weights = WeightsConfig() if trains_experts(config.model) else config.weights
        # The caller's random numbers are none of our business.
        with local_weights(self.storage, self.folder) as local, torch.random.fork_rng(devices=[]):
            label_map = read_state(local).label_map
            network, frozen = build_network(config.model, weights, label_map, seed=config.seed)
            load_weights(local, network, frozen=frozen)
        return network.eval()


@dataclass(frozen=True)
class _ExportedNetwork:
    place: str

    def __call__(self, config: RunConfig) -> Network:
        return load_exported(self.place).network
