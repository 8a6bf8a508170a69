"""What one replica of a model with eyes and ears makes of a batch of clips, against the network view by view."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import ray.train
import torch

from cast_ray.config import ModelConfig, RunConfig, WeightsConfig
from cast_ray.data.inputs import InputMaker
from cast_ray.data.loader import MEDIA_COLUMNS, clip_loader
from cast_ray.data.manifest import TRAIN, Clip, Manifest
from cast_ray.data.order import Position
from cast_ray.data.views import TestViews, frame_sampling
from cast_ray.evaluation.predict import _Model
from cast_ray.labels import LabelMap
from cast_ray.models.named import spec_of
from cast_ray.recipes.toy import toy
from cast_ray.training.build import build_network
from cast_ray.training.checkpoint import CheckpointState, write_checkpoint

CLIPS = Path(__file__).parents[1] / "clips"
FILES = ("nasa_with_audio.mp4", "arm_wrestling_k400.mp4", "corrupted.mp4")
LABELS = LabelMap({"verb": ("take", "put"), "sound": ("tone", "clicks", "sweep")})


@pytest.fixture(scope="module", params=["cava_tiny_clock", "audio_tiny", "spatial_tiny"])
def config(request: pytest.FixtureRequest) -> RunConfig:
    recipe = toy()
    model = ModelConfig(name=request.param, num_frames=4, image_size=32, drop_path=0.0)
    weights = WeightsConfig(spatial=None if request.param == "audio_tiny" else "random")
    return dataclasses.replace(recipe, model=model, weights=weights)


@pytest.fixture(scope="module")
def batch(config: RunConfig, tmp_path_factory: pytest.TempPathFactory, sharded) -> dict:
    """Two views along time and three crops of a clip with sound, one without, and one that cannot be read."""
    clips = tuple(Clip(clip_id=name, uri=str(CLIPS / name), labels=(0, 0), split=TRAIN) for name in FILES)
    manifest = Manifest(clips=clips, label_map=LABELS)
    dataset = sharded(manifest, tmp_path_factory.mktemp("shards"))
    view = TestViews(sampling=frame_sampling(config), temporal_views=2, spatial_crops=3)
    return clip_loader(dataset, config, view)(dataset.index)


@pytest.fixture(scope="module")
def network(config: RunConfig) -> tuple[torch.nn.Module, str]:
    """A network whose zero-initialised parts are moved, so that every input matters."""
    network, frozen = build_network(config.model, config.weights, LABELS, seed=config.seed)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return network.eval(), frozen


@pytest.fixture(scope="module")
def replica(config: RunConfig, network: tuple[torch.nn.Module, str], tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("checkpoint")
    state = CheckpointState(
        position=Position(), config=config.to_dict(), label_map=LABELS, dataset="", frozen=network[1], validation={}
    )
    weights = {name: p.detach().clone() for name, p in network[0].named_parameters() if p.requires_grad}
    write_checkpoint(folder, state, {"weights": weights}, [])
    return _Model(config, ray.train.Checkpoint.from_directory(str(folder)))


def test_probabilities_are_the_mean_over_the_views(config, network, replica, batch):
    found = replica(dict(batch))
    maker = InputMaker(spec_of(config.model), torch.device("cpu"))
    inputs = maker.evaluation(batch)
    for row, clip_id in enumerate(FILES):
        views = []
        for view in range(6):
            one = {name: value[6 * row + view].unsqueeze(0) for name, value in inputs.items()}
            with torch.no_grad():
                views.append({field: logits.softmax(-1)[0] for field, logits in network[0](one).items()})
        for field in LABELS.fields:
            expected = torch.stack([view[field] for view in views])
            torch.testing.assert_close(torch.from_numpy(found[f"probabilities_{field}"][row]), expected.mean(0))
            if clip_id == FILES[0]:
                assert (expected[0] - expected[5]).abs().max() > 1e-5  # the views differ


def test_media_do_not_travel_on(replica, batch):
    found = replica(dict(batch))
    assert set(found) == set(batch) - set(MEDIA_COLUMNS) | {f"probabilities_{field}" for field in LABELS.fields}
    assert found["clip_id"].tolist() == list(FILES)
