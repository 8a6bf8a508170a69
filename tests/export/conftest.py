"""A run as training leaves it: tiny expert files, two checkpoints on them, and the network that the better one is."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from cast_ray.config import ModelConfig, RunConfig, WeightsConfig
from cast_ray.data.order import Position
from cast_ray.labels import LABEL, LabelMap
from cast_ray.models.network import Network
from cast_ray.recipes.toy import toy
from cast_ray.training.build import build_network
from cast_ray.training.checkpoint import CheckpointState, write_checkpoint
from cast_ray.weights.clip import KEY_MAP as CLIP
from cast_ray.weights.videomae import KEY_MAP as VIDEOMAE

LABELS = LabelMap({LABEL: ("up", "down", "öffnen")})
KEY_MAPS = {"spatial": CLIP, "temporal": VIDEOMAE}


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run's folder with two checkpoints, of which the first is better."""

    folder: Path
    config: RunConfig
    best: Network
    """In evaluation mode."""
    files: dict[str, Path]
    """Weights of the experts, by role."""

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint_1"


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Run]:
    """Makes a run of a tiny model; `files` False: on random experts."""

    def make(*, files: bool = True, **model: object) -> Run:
        settings = {"name": "cast_tiny", "num_frames": 4, "image_size": 16, "drop_path": 0.1} | model
        config = dataclasses.replace(toy(), model=ModelConfig(**settings))
        paths = expert_files(tmp_path, config) if files else {}
        sources = {role: str(path) for role, path in paths.items()} or {"spatial": "random", "temporal": "random"}
        config = dataclasses.replace(config, weights=WeightsConfig(**sources))
        folder = tmp_path / "runs" / "one"
        best = train(config, folder / "checkpoint_1", seed=1, accuracy=0.9)
        train(config, folder / "checkpoint_2", seed=2, accuracy=0.4)
        return Run(folder=folder, config=config, best=best.eval(), files=paths)

    return make


@pytest.fixture
def run(make_run: Callable[..., Run]) -> Run:
    return make_run()


@pytest.fixture
def clip() -> Tensor:
    return torch.randn(2, 3, 4, 16, 16, generator=torch.Generator().manual_seed(5))


def expert_files(folder: Path, config: RunConfig) -> dict[str, Path]:
    """Random experts in the layouts of their authors."""
    network, _ = build_network(config.model, WeightsConfig(), LABELS, seed=11)
    files = {}
    for role, key_map in KEY_MAPS.items():
        ours = {name: x.data for name, x in network.experts[role].named_parameters() if "_adapter." not in name}
        files[role] = folder / f"{role}.pth"
        torch.save(key_map.to_foreign(ours)[0], files[role])
    return files


def train(config: RunConfig, folder: Path, *, seed: int, accuracy: float) -> Network:
    """A checkpoint in which everything that trains has moved; the network that it belongs to."""
    network, frozen = build_network(config.model, config.weights, LABELS, seed=config.seed)
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=draw))
    trained = {name: p.detach() for name, p in network.named_parameters() if p.requires_grad}
    state = CheckpointState(
        position=Position(epoch=seed),
        config=config.to_dict(),
        label_map=LABELS,
        dataset="0123456789abcdef",
        frozen=frozen,
        validation={"label_top1": accuracy, "loss": 1.0},
    )
    folder.mkdir(parents=True)
    write_checkpoint(folder, state, {"weights": trained, "steps": {"steps": torch.tensor(1.0)}}, [])
    return network
