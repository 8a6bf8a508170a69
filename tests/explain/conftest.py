"""A run of a tiny model as training leaves it, with a dataset of synthetic clips of its classes; made without Ray."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from cast_ray.config import ModelConfig, RunConfig, WeightsConfig
from cast_ray.data.catalog.table import read_table
from cast_ray.data.manifest import Manifest
from cast_ray.data.order import Position
from cast_ray.data.shards import ShardedDataset
from cast_ray.data.synthetic.dataset import SyntheticDataset, write_dataset
from cast_ray.models.named import NAMED
from cast_ray.recipes.toy import toy
from cast_ray.training.build import build_network
from cast_ray.training.checkpoint import CheckpointState, write_checkpoint


@dataclass(frozen=True, kw_only=True)
class Data:
    source: SyntheticDataset
    manifest: Manifest
    dataset: ShardedDataset


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory, sharded: Callable[..., ShardedDataset]) -> Data:
    """12 validation clips of verb, noun and sound; a quarter has no sound track."""
    root = tmp_path_factory.mktemp("explain")
    source = write_dataset(root / "clips", layout="table", train_clips=36, validation_clips=12, silent_share=0.25)
    manifest = read_table(str(source.videos), str(source.annotations))
    return Data(source=source, manifest=manifest, dataset=sharded(manifest, root / "shards"))


@pytest.fixture(scope="session")
def make_run(tmp_path_factory: pytest.TempPathFactory, data: Data) -> Callable[[str], Path]:
    """Makes the folder of a run of a named model whose weights are random, exchanges included."""
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp("run") / name
            _write_run(made[name], name, data)
        return made[name]

    return make


def _write_run(folder: Path, name: str, data: Data) -> None:
    experts = dict.fromkeys(NAMED[name].experts, "random")
    config: RunConfig = dataclasses.replace(
        toy(),
        storage=str(folder.parent),
        model=ModelConfig(name=name, train_experts=True),
        weights=WeightsConfig(**experts),
    )
    network, frozen = build_network(config.model, config.weights, data.manifest.label_map, seed=0)
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=draw))
    state = CheckpointState(
        position=Position(epoch=1),
        config=config.to_dict(),
        label_map=data.manifest.label_map,
        dataset=data.dataset.fingerprint,
        frozen=frozen,
        validation={"verb_top1": 0.5, "loss": 1.0},
    )
    checkpoint = folder / "checkpoint_1"
    checkpoint.mkdir(parents=True)
    weights = {parameter: value.detach() for parameter, value in network.named_parameters()}
    write_checkpoint(checkpoint, state, {"weights": weights, "steps": {"steps": torch.tensor(1.0)}}, [])
