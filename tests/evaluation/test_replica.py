"""What one replica of a model with eyes and ears makes of a batch of clips, against the network view by view."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import ray.train
import torch
from rich.console import Console

from cast_ray.config import ModelConfig, RunConfig, WeightsConfig
from cast_ray.data.inputs import InputMaker
from cast_ray.data.loader import MEDIA_COLUMNS, clip_loader
from cast_ray.data.manifest import TRAIN, Clip, Manifest
from cast_ray.data.order import Position
from cast_ray.data.views import TestViews, frame_sampling
from cast_ray.errors import UserError
from cast_ray.evaluation.replica import Replica, compute_dtype
from cast_ray.evaluation.trained import model_at, model_of
from cast_ray.export.contents import contents_of, from_json, to_json
from cast_ray.export.merge import export
from cast_ray.labels import LabelMap
from cast_ray.models.named import spec_of
from cast_ray.recipes.toy import toy
from cast_ray.training.build import build_network
from cast_ray.training.checkpoint import CheckpointState, write_checkpoint
from cast_ray.weights.moved import MovedWeights

CLIPS = Path(__file__).parents[1] / "clips"
QUIET = Console(quiet=True)
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
def model(config: RunConfig, network: tuple[torch.nn.Module, str], tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("checkpoint")
    state = CheckpointState(
        position=Position(), config=config.to_dict(), label_map=LABELS, dataset="", frozen=network[1], validation={}
    )
    weights = {name: p.detach().clone() for name, p in network[0].named_parameters() if p.requires_grad}
    write_checkpoint(folder, state, {"weights": weights}, [])
    return model_of(ray.train.Checkpoint.from_directory(str(folder)))


def test_probabilities_are_the_mean_over_the_views(config, network, model, batch):
    found = Replica(model, views=True)(dict(batch))
    assert found["num_views"].tolist() == [6, 6, 6]
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
            torch.testing.assert_close(torch.from_numpy(found[f"view_probabilities_{field}"][row]), expected)
            if clip_id == FILES[0]:
                assert (expected[0] - expected[5]).abs().max() > 1e-5  # the views differ


def test_the_configuration_chooses_what_is_averaged(config, model, batch):
    test = dataclasses.replace(config.test, view_mean="logits")
    found = Replica(model.used(dataclasses.replace(config, test=test)), views=True)(dict(batch))
    for field in LABELS.fields:
        scores = np.log(found[f"view_probabilities_{field}"].astype(np.float64)).mean(1)
        expected = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
        np.testing.assert_allclose(found[f"probabilities_{field}"], expected, atol=1e-5)


def test_media_and_views_that_are_not_asked_for_do_not_travel_on(model, batch):
    found = Replica(model)(dict(batch))
    made = {f"probabilities_{field}" for field in LABELS.fields} | {"num_views"}
    assert set(found) == set(batch) - set(MEDIA_COLUMNS) | made
    assert found["clip_id"].tolist() == list(FILES)


def test_scores_that_are_not_finite_are_an_error_with_the_clip(model, batch):
    def load(config: RunConfig) -> torch.nn.Module:
        network = model.load(config)
        torch.nn.init.constant_(next(p for p in network.parameters() if p.requires_grad), float("nan"))
        return network

    with pytest.raises(UserError, match=r"scores of clip 'nasa_with_audio\.mp4' are not finite in torch\.float32"):
        Replica(dataclasses.replace(model, load=load))(dict(batch))


@pytest.mark.parametrize(
    ("precision", "device", "dtype"),
    [
        ("fp16", "cuda", torch.float16),
        ("fp16", "cpu", torch.float32),
        ("bf16", "cuda", torch.bfloat16),
        ("bf16", "cpu", torch.bfloat16),
        ("float32", "cuda", torch.float32),
    ],
)
def test_the_forward_pass_has_the_format_of_the_training_where_the_device_has_it(precision, device, dtype):
    assert compute_dtype(precision, torch.device(device)) == dtype


def test_an_exported_file_predicts_as_its_checkpoint_does(model, batch, tmp_path):
    file = str(tmp_path / "model.safetensors")
    export(model.place, file, moved=MovedWeights(), console=Console(quiet=True))
    exported = model_at(file)
    assert exported.settings == model.settings | {"tensors": exported.tensors}
    assert model_at(model.place).settings == model.settings
    found, expected = Replica(exported)(dict(batch)), Replica(model)(dict(batch))
    for field in LABELS.fields:
        np.testing.assert_array_equal(found[f"probabilities_{field}"], expected[f"probabilities_{field}"])


def test_a_rounded_export_is_another_model_than_its_original(model, tmp_path):
    """Else their predictions could share a folder."""
    settings = []
    for dtype in ("float32", "bf16"):
        export(model.place, str(tmp_path / f"{dtype}.safetensors"), dtype=dtype, moved=MovedWeights(), console=QUIET)
        settings.append(model_at(str(tmp_path / f"{dtype}.safetensors")).settings)
    assert settings[0]["checkpoint"] == settings[1]["checkpoint"]
    assert settings[0] != settings[1]


def test_replicas_in_other_folders_find_a_model_with_a_relative_path(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    export(model.place, "model.safetensors", moved=MovedWeights(), console=QUIET)
    exported = model_at("model.safetensors")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert exported.load(exported.config)
    assert exported.place == str(tmp_path / "model.safetensors")


def test_an_exported_file_keeps_what_is_averaged_over_views(config, model):
    for view_mean in ("probabilities", "logits"):
        changed = dataclasses.replace(config, test=dataclasses.replace(config.test, view_mean=view_mean))
        contents = contents_of(model.used(changed), tensors="0")
        assert from_json(to_json(contents), where="here").view_mean == view_mean
