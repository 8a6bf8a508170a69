"""Which trained model predicts: a checkpoint, the best one of a run, or an exported file, with its settings."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow.fs as pafs
import ray.train
from torch import nn

from cast_ray.config import DataConfig, RunConfig, ScaleConfig, TestConfig
from cast_ray.data.storage import filesystem, retried
from cast_ray.data.views import TestViews, frame_sampling
from cast_ray.evaluation.part_files import absolute
from cast_ray.export.contents import Contents
from cast_ray.export.fetch import find_checkpoint, local_weights
from cast_ray.export.file import SUFFIX
from cast_ray.export.load import load_exported
from cast_ray.labels import LabelMap
from cast_ray.training.build import build_network
from cast_ray.training.checkpoint import fetch_state, load_weights, read_state

__all__ = ["TrainedModel", "model_at", "model_of"]


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
    dataset: str
    """Fingerprint of the dataset that it was trained on."""
    tensors: str | None = None
    """Fingerprint of all tensors of an exported file, which may be rounded; None: a checkpoint."""
    load: Callable[[RunConfig], nn.Module]
    """The network of a configuration, on the CPU and in float32; may be sent to other processes."""

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


def model_at(place: str) -> TrainedModel:
    """The model at a path or URI: a checkpoint, a run, whose best checkpoint is taken, or a file of `cast-ray export`.

    Raises:
        UserError: it is none of these, or cannot be read.
    """
    place = absolute(place)  # replicas work in other folders
    storage, path = filesystem(place)
    if retried(lambda: storage.get_file_info(path), what=place).type == pafs.FileType.File and path.endswith(SUFFIX):
        return _exported(place)
    storage, folder = find_checkpoint(place)
    return model_of(ray.train.Checkpoint(folder, filesystem=storage))


def model_of(checkpoint: ray.train.Checkpoint) -> TrainedModel:
    """The model of a checkpoint; its weights are the averaged ones if the run keeps a moving average."""
    state = fetch_state(checkpoint)
    return TrainedModel(
        place=checkpoint.path,
        config=RunConfig.from_dict(state.config),
        label_map=state.label_map,
        fingerprint=state.fingerprint,
        dataset=state.dataset,
        load=_CheckpointNetwork(checkpoint),
    )


def _exported(place: str) -> TrainedModel:
    contents = load_exported(place).contents
    return TrainedModel(
        place=place,
        config=_config(contents),
        label_map=contents.label_map,
        fingerprint=contents.fingerprints.checkpoint,
        dataset=contents.fingerprints.dataset,
        tensors=contents.fingerprints.tensors,
        load=_ExportedNetwork(place),
    )


def _config(contents: Contents) -> RunConfig:
    """Of the stored views; on one CPU worker, as the file does not know on what it will run."""
    views = contents.views
    return RunConfig(
        model=contents.model,
        data=DataConfig(sampling=views.sampling.kind, stride=views.sampling.stride),
        scale=ScaleConfig(num_workers=1, use_gpu=False, cpus_per_worker=1.0, precision="float32"),
        test=TestConfig(
            temporal_views=views.temporal_views, spatial_crops=views.spatial_crops, view_mean=contents.view_mean
        ),
    )


@dataclass(frozen=True)
class _CheckpointNetwork:
    checkpoint: ray.train.Checkpoint

    def __call__(self, config: RunConfig) -> nn.Module:
        with local_weights(self.checkpoint.filesystem, self.checkpoint.path) as folder:
            label_map = read_state(folder).label_map
            network, frozen = build_network(config.model, config.weights, label_map, seed=config.seed)
            load_weights(folder, network, frozen=frozen)
        return network


@dataclass(frozen=True)
class _ExportedNetwork:
    place: str

    def __call__(self, config: RunConfig) -> nn.Module:
        return load_exported(self.place).network
