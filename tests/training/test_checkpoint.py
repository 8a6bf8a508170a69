"""Checkpoints: what was written comes back, and whatever does not fit is refused in words."""

from __future__ import annotations

import contextlib
import json
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import ray.train
import safetensors.torch
import torch
from rich.console import Console
from torch import nn

from cast_ray.config import ModelConfig, WeightsConfig
from cast_ray.data.manifest import VALIDATION
from cast_ray.data.media import MediaFormat
from cast_ray.data.order import Position
from cast_ray.data.shards import ShardedDataset
from cast_ray.errors import UserError
from cast_ray.evaluation.predict import predict
from cast_ray.evaluation.trained import model_of
from cast_ray.labels import LABEL, LabelMap
from cast_ray.models.assemble import assemble
from cast_ray.models.named import spec_of
from cast_ray.recipes.ssv2 import ssv2
from cast_ray.recipes.toy import toy
from cast_ray.training.build import build_network
from cast_ray.training.checkpoint import (
    CheckpointState,
    fetch_history,
    fetch_state,
    load_weights,
    read_history,
    read_run,
    read_state,
    write_checkpoint,
)

LABELS = LabelMap({LABEL: ("up", "down", "öffnen")})
HISTORY = [{"kind": "step", "step": 1, "loss": 2.5}, {"kind": "unreadable", "clip_id": "a", "reason": "line\nbreak ü"}]
FILES = {"weights.safetensors", "optimizer.safetensors", "history.jsonl", "state.json"}


def tiny(seed: int, label_map: LabelMap = LABELS, **model) -> tuple[nn.Module, str]:
    config = ModelConfig(name="cast_tiny", **({"num_frames": 4, "image_size": 16, "drop_path": 0.0} | model))
    return build_network(config, WeightsConfig(), label_map, seed=seed)


def trainable(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in network.named_parameters() if p.requires_grad}


def state_of(frozen: str) -> CheckpointState:
    return CheckpointState(
        position=Position(epoch=3, step=2),
        config=toy().to_dict(),
        label_map=LABELS,
        dataset="0123456789abcdef",
        frozen=frozen,
        validation={"label_top1": 0.75, "loss": 0.5},
    )


def changed(weights: dict[str, torch.Tensor]) -> dict[str, dict[str, torch.Tensor]]:
    """As after training: all weights moved, and an optimiser's state, laid out as `DeepSpeedStrategy.state` does."""
    moved = {name: tensor + 1 for name, tensor in weights.items()}
    moments = {
        key: {name: torch.full_like(tensor, value) for name, tensor in weights.items()}
        for key, value in (("exp_avg", 0.25), ("exp_avg_sq", 0.5))
    }
    return {"weights": moved, "steps": {"steps": torch.tensor(17.0)}, **moments}


@pytest.fixture(scope="module")
def network() -> tuple[nn.Module, str]:
    return tiny(seed=0)


@pytest.fixture
def folder(network, tmp_path) -> Path:
    """A checkpoint of a network with frozen random experts of seed 0."""
    model, frozen = network
    write_checkpoint(tmp_path, state_of(frozen), changed(trainable(model)), HISTORY)
    return tmp_path


def change_state(folder: Path, **values) -> None:
    path = folder / "state.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_what_was_written_is_read_back(folder, network):
    model, frozen = network
    state = read_state(folder)
    assert {name: getattr(state, name) for name in state.__dataclass_fields__ if name != "fingerprint"} == {
        name: getattr(state_of(frozen), name) for name in state.__dataclass_fields__ if name != "fingerprint"
    }
    assert read_history(folder) == HISTORY
    expected, read = changed(trainable(model)), read_run(folder).tensors
    assert read.keys() == expected.keys()
    for kind, tensors in expected.items():
        assert read[kind].keys() == tensors.keys()
        assert all(torch.equal(read[kind][name], tensor) for name, tensor in tensors.items())


def test_the_state_can_be_read_without_the_tensors(folder):
    for name in ("weights.safetensors", "optimizer.safetensors"):
        (folder / name).unlink()
    assert fetch_state(ray.train.Checkpoint.from_directory(folder)) == read_state(folder)


def test_the_fingerprint_of_a_checkpoint_changes_with_its_weights_only(folder, network, tmp_path_factory):
    model, frozen = network
    fingerprints = [read_state(folder).fingerprint]
    for shift in (0.0, 1e-6):
        other = tmp_path_factory.mktemp("other")
        tensors = changed(trainable(model))
        tensors["weights"] = {name: tensor + shift for name, tensor in tensors["weights"].items()}
        write_checkpoint(other, state_of(frozen), tensors, [])
        fingerprints.append(read_state(other).fingerprint)
    assert fingerprints[0] == fingerprints[1] != fingerprints[2]


def test_weights_get_into_a_network_with_the_same_frozen_part_and_nothing_else_changes(folder):
    fresh, frozen = tiny(seed=0)
    before = {name: p.detach().clone() for name, p in fresh.named_parameters()}
    load_weights(folder, fresh, frozen=frozen)
    for name, parameter in fresh.named_parameters():
        assert torch.equal(parameter, before[name] + 1 if parameter.requires_grad else before[name])


def test_a_checkpoint_holds_only_what_trains(folder, network):
    stored = safetensors.torch.load_file(folder / "weights.safetensors")
    assert stored.keys() == trainable(network[0]).keys()
    assert {path.name for path in folder.iterdir()} == FILES


def test_the_published_model_needs_less_than_650_mb_with_adamw():
    """Weights and two moments in float32; the file formats add less than a megabyte."""
    with torch.device("meta"):
        network = assemble(spec_of(ssv2().model), {LABEL: 174})
    network.freeze(train_experts=False)
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    assert trained == 45_205_038
    assert 3 * 4 * trained + 10**6 < 650e6


def test_the_state_is_written_last(network, tmp_path):
    model, frozen = network
    with pytest.raises(TypeError, match="not JSON serializable"):
        write_checkpoint(tmp_path, state_of(frozen), changed(trainable(model)), [{"kind": object()}])
    with pytest.raises(UserError, match="is not a checkpoint"):
        read_state(tmp_path)


def refuses(folder: Path, network: tuple[nn.Module, str], message: str) -> None:
    """Loading is refused with the message, and the network stays as it was."""
    model, frozen = network
    before = trainable(model)
    with pytest.raises(UserError, match=message):
        load_weights(folder, model, frozen=frozen)
    assert all(torch.equal(tensor, before[name]) for name, tensor in trainable(model).items())


def test_other_frozen_weights_are_refused_with_the_flags_that_name_them(folder):
    other = tiny(seed=1)
    refuses(
        folder, other, rf"the frozen experts have fingerprint {other[1]}, .*\(--weights.spatial, --weights.temporal\)"
    )


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"label_map": LabelMap({LABEL: ("up", "down")})}, r"another model: 0 names .* \d+ of other shape .*classify"),
        ({"label_map": LabelMap({"verb": ("a",), "noun": ("b",)})}, r"another model: \d+ names missing \['head"),
        ({"num_frames": 8}, r"another model: .* of other shape .*exchanges"),
        ({"train_experts": True}, r"another model: [1-9]\d* names missing"),
    ],
    ids=["classes", "fields", "frames", "trainable experts"],
)
def test_another_model_is_refused_with_the_names_that_differ(folder, other, message):
    refuses(folder, tiny(seed=0, **other), f"the checkpoint {folder} belongs to {message}")


def test_weights_that_the_model_has_no_place_for_are_refused(network, tmp_path):
    whole, _ = tiny(seed=0, train_experts=True)
    write_checkpoint(tmp_path, state_of(network[1]), changed(trainable(whole)), [])
    refuses(tmp_path, network, r"belongs to another model: 0 names missing \[\], [1-9]\d* unexpected \['experts")


def test_another_label_map_is_refused_before_anything_is_evaluated(folder):
    renamed = LabelMap({LABEL: ("up", "down", "open")})
    index = pa.table({"split": [VALIDATION]})
    dataset = ShardedDataset(uri="nowhere", label_map=renamed, fingerprint="x", format=MediaFormat(), index=index)
    model = model_of(ray.train.Checkpoint.from_directory(folder))
    with pytest.raises(UserError) as raised:
        predict(model, dataset, VALIDATION, output=str(folder / "out"), console=Console())
    message = str(raised.value)
    assert f"was trained with label map {LABELS.fingerprint}, the data has {renamed.fingerprint}" in message


def test_a_folder_without_state_is_no_checkpoint(folder, network):
    (folder / "state.json").unlink()
    refuses(folder, network, r"is not a checkpoint: it has no state\.json; give the folder of one checkpoint")


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: "[]",
        lambda text: "\x00" + text,
        lambda text: json.dumps({key: value for key, value in json.loads(text).items() if key != "config"}),
        lambda text: json.dumps(json.loads(text) | {"position": {"place": 3}}),
    ],
    ids=["cut off", "empty", "list", "binary", "key missing", "other position"],
)
def test_a_damaged_state_is_refused(folder, network, damage):
    path = folder / "state.json"
    path.write_text(damage(path.read_text()))
    refuses(folder, network, r"state\.json is damaged: .*; use another checkpoint")
    with pytest.raises(UserError, match="is damaged"):
        fetch_state(ray.train.Checkpoint.from_directory(folder))


def test_a_damaged_label_map_is_refused_with_the_entry(folder, network):
    path = folder / "state.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"label_map": '{"label": ["up", 2]}'}))
    refuses(folder, network, f"the label map of {folder} has 2 as class 1 of 'label'")


def test_another_format_version_is_refused(folder, network):
    change_state(folder, format_version=99)
    refuses(folder, network, "has checkpoint format 99, this program reads 1; use that version")


@pytest.mark.parametrize("name", ["weights.safetensors", "optimizer.safetensors"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-100]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(np.random.default_rng(0).bytes(5000)),
        lambda path: path.unlink(),
    ],
    ids=["cut off", "empty", "random", "missing"],
)
def test_a_damaged_tensor_file_is_refused(folder, network, name, damage):
    damage(folder / name)
    with pytest.raises(UserError, match=rf"cannot read .*{name}: .*the checkpoint is damaged, use another one"):
        read_run(folder)
    if name.startswith("weights"):
        refuses(folder, network, "the checkpoint is damaged")


def test_weights_that_were_changed_afterwards_are_refused(folder, network):
    path = folder / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    refuses(folder, network, r"weights\.safetensors is damaged: its fingerprint is .*; use another checkpoint")


class Malicious:
    """Unpickling this writes a file."""

    def __init__(self, marker: Path) -> None:
        self._marker = marker

    def __reduce__(self):
        return Path.touch, (self._marker,)


def test_nothing_in_a_checkpoint_is_executed_whatever_is_put_there(folder, network, tmp_path_factory):
    marker = tmp_path_factory.mktemp("outside") / "executed"
    attack = pickle.dumps(Malicious(marker))
    pickle.loads(attack)
    assert marker.exists(), "the attack must work where there is no defence"
    marker.unlink()
    readers = (
        read_state,
        read_run,
        read_history,
        lambda path: load_weights(path, network[0], frozen=network[1]),
        lambda path: fetch_state(ray.train.Checkpoint.from_directory(path)),
        lambda path: fetch_history(ray.train.Checkpoint.from_directory(path)),
    )
    for name in sorted(FILES):
        original = (folder / name).read_bytes()
        for write in (lambda path: path.write_bytes(attack), lambda path: torch.save({"x": Malicious(marker)}, path)):
            write(folder / name)
            for read in readers:
                with contextlib.suppress(UserError):
                    read(folder)
        (folder / name).write_bytes(original)
    assert not marker.exists()
