"""An exported file as what a new run starts from, and the command itself."""

from __future__ import annotations

import dataclasses
import io
import sys

import pytest
import torch
from rich.console import Console

from cast_ray.cli import main
from cast_ray.config import WeightsConfig
from cast_ray.errors import UserError
from cast_ray.export.load import load_exported
from cast_ray.export.merge import export
from cast_ray.labels import LABEL, LabelMap
from cast_ray.models.options import ModelOptions
from cast_ray.training.build import build_network
from cast_ray.training.checkpoint import read_state
from cast_ray.weights.moved import MovedWeights

NEW = LabelMap({LABEL: ("left", "right")})


@pytest.fixture
def exported(run, tmp_path):
    path = tmp_path / "model.safetensors"
    export(str(run.checkpoint), str(path), moved=MovedWeights(), console=Console(file=io.StringIO()))
    for file in run.files.values():
        file.unlink()
    return path


def build(run, source, label_map=None, *, new_head=False, **model):
    config = dataclasses.replace(run.config.model, **model)
    weights = WeightsConfig(network=str(source), new_head=new_head)
    return build_network(config, weights, label_map or read_state(run.checkpoint).label_map, seed=8)


def test_new_run_starts_with_the_exported_weights(run, exported):
    network, frozen = build(run, exported)
    expected = dict(run.best.named_parameters())
    assert all(torch.equal(p, expected[name]) for name, p in network.named_parameters())
    assert frozen == read_state(run.checkpoint).frozen


def test_new_run_on_other_classes_keeps_all_but_the_classifier(run, exported):
    network, _ = build(run, exported, NEW, new_head=True)
    expected = dict(run.best.named_parameters())
    own = {name: p for name, p in network.named_parameters() if not name.startswith("head.classify.")}
    assert all(torch.equal(p, expected[name]) for name, p in own.items())
    assert network.head.classify[LABEL].weight.shape[0] == 2
    with pytest.raises(UserError, match="does not fit the model"):
        build(run, exported, NEW)


def test_new_run_at_other_sizes_has_its_tables_resized(run, exported):
    network, _ = build(run, exported, num_frames=8, image_size=32)
    assert network(torch.zeros(1, 3, 8, 32, 32))[LABEL].shape == (1, 3)


def test_model_whose_tensors_fit_by_chance_is_refused(run, exported):
    with pytest.raises(UserError, match=r"is of another model than this network: experts\.spatial\.activation"):
        build(run, exported, options=ModelOptions(spatial="clip_gelu"))


def test_damaged_file_is_no_start(run, exported):
    content = bytearray(exported.read_bytes())
    content[-5] ^= 1
    exported.write_bytes(content)
    with pytest.raises(UserError, match="is damaged"):
        build(run, exported)


def test_command_writes_the_file_and_says_what_it_is(run, tmp_path, monkeypatch, capsys):
    moved = run.files["spatial"].rename(tmp_path / "there.pth")
    output = str(tmp_path / "model.safetensors")
    arguments = [str(run.folder), "--output", output, "--dtype", "bf16", "--weights.spatial", str(moved)]
    monkeypatch.setattr(sys, "argv", ["cast-ray", "export", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    out, err = capsys.readouterr()
    assert (stopped.value.code, err.strip()) == (0, "")
    assert out.startswith(f"{output}: cast_tiny, 3 classes (label), ")
    assert out.endswith(f"in bf16, from {run.checkpoint}\n")
    assert load_exported(output).contents.model.name == "cast_tiny"
