"""Runs of tiny models with random weights, and videos that are made for a purpose."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from cast_ray.config import ModelConfig, RunConfig, TestConfig
from cast_ray.data.order import Position
from cast_ray.labels import LABEL, NOUN, VERB, LabelMap
from cast_ray.models.network import Network
from cast_ray.recipes.toy import toy
from cast_ray.training.build import build_network
from cast_ray.training.checkpoint import CheckpointState, write_checkpoint

CLIPS = Path(__file__).parents[1] / "clips"
ONE = LabelMap({LABEL: ("up", "down", "öffnen", "shut", "turn [bold]left[/]", "run", "cost 5$ or 6$")})
TWO = LabelMap({VERB: ("cut", "wash", "open"), NOUN: ("onion", "pan", "door", "tap")})


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run's folder with two checkpoints, of which the first is better, and the network that it holds."""

    folder: Path
    config: RunConfig
    label_map: LabelMap
    network: Network

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint_1"


@pytest.fixture(scope="session")
def make_run() -> Callable[..., Run]:
    """Writes a run of a tiny model into a folder."""

    def make(folder: Path, *, label_map: LabelMap = ONE, name: str = "cast_tiny") -> Run:
        model = ModelConfig(name=name, num_frames=4, image_size=16, train_experts=True)
        config = dataclasses.replace(toy(), model=model, test=TestConfig(temporal_views=2, spatial_crops=3))
        networks = []
        for number, accuracy in ((1, 0.9), (2, 0.4)):
            network, frozen = build_network(config.model, config.weights, label_map, seed=number)
            draw = torch.Generator().manual_seed(number)
            with torch.no_grad():  # classifiers begin at almost zero, and all clips would look the same
                for parameter in network.parameters():
                    parameter.add_(0.1 * torch.randn(parameter.shape, generator=draw))
            state = CheckpointState(
                position=Position(epoch=number),
                config=config.to_dict(),
                label_map=label_map,
                dataset="0123456789abcdef",
                frozen=frozen,
                validation={f"{field}_top1": accuracy for field in label_map.fields},
            )
            (folder / f"checkpoint_{number}").mkdir(parents=True)
            tensors = {"weights": {name: x.detach() for name, x in network.named_parameters()}}
            write_checkpoint(folder / f"checkpoint_{number}", state, tensors | {"steps": {"n": torch.ones(1)}}, [])
            networks.append(network.eval())
        return Run(folder=folder, config=config, label_map=label_map, network=networks[0])

    return make


@pytest.fixture(scope="session")
def run(make_run: Callable[..., Run], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A model with one label field."""
    return make_run(tmp_path_factory.mktemp("one") / "runs" / "ssv2")


@pytest.fixture(scope="session")
def action_run(make_run: Callable[..., Run], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A model with verbs and nouns, which hears."""
    return make_run(tmp_path_factory.mktemp("two") / "runs" / "ek100", label_map=TWO, name="ca2st_tiny")


@pytest.fixture(scope="session")
def clips() -> Path:
    """Folder of the real clips."""
    return CLIPS


@pytest.fixture(scope="session")
def coloured() -> Callable[..., Path]:
    """Writes a video whose seconds have colours: (red, green or blue, seconds) one after the other, 10 frames/s."""

    def write(path: Path, *parts: tuple[str, float], gop: int = 10) -> Path:
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=10, options={"g": str(gop), "preset": "ultrafast"})
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            for colour, seconds in parts:
                pixels = np.zeros((48, 64, 3), np.uint8)
                pixels[..., ("red", "green", "blue").index(colour)] = 255
                for _ in range(round(10 * seconds)):
                    container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            container.mux(stream.encode(None))
        return path

    return write
