"""A run that begins with another one's checkpoint."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pyarrow.fs as pafs
import pytest
import ray.train
import torch

from cast_ray.config import RunConfig
from cast_ray.configuration import read_configuration
from cast_ray.data.order import Position
from cast_ray.data.storage import filesystem
from cast_ray.errors import UserError
from cast_ray.labels import LABEL, LabelMap
from cast_ray.recipes.toy import toy
from cast_ray.training.checkpoint import FILES, STATE_FILE, CheckpointState, read_run, write_checkpoint
from cast_ray.training.continuing import check_continues
from cast_ray.training.folder import latest_position, listed_checkpoint
from cast_ray.training.takeover import MAY_CHANGE, take_over
from cast_ray.tuning.space import with_settings

LABELS = LabelMap({LABEL: ("up", "down")})
HISTORY = [{"kind": "step", "step": 8, "loss": 0.5}, {"kind": "epoch", "epoch": 2, "validation": {"label_top1": 0.5}}]
TENSORS = {"weights": {"w": torch.arange(3.0)}, "exp_avg": {"w": torch.ones(3)}, "steps": {"steps": torch.tensor(8.0)}}
NAME = "checkpoint_2026-11-21_16-00-00.000001"


def configured(storage: str, name: str, **values: object) -> RunConfig:
    return dataclasses.replace(with_settings(toy(), values), storage=storage, name=name)


def donated(storage: str) -> str:
    """The place of a checkpoint after two epochs."""
    state = CheckpointState(
        position=Position(epoch=2),
        config=configured(storage, "donor").to_dict(),
        label_map=LABELS,
        dataset="abc",
        frozen="def",
        validation={"label_top1": 0.5},
    )
    files, root = filesystem(storage)
    files.create_dir(f"{root}/donor/{NAME}", recursive=True)
    write_checkpoint(f"{root}/donor/{NAME}", state, TENSORS, HISTORY, storage=files)
    return f"{storage}/donor/{NAME}"


@pytest.fixture(params=["folder", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "runs") if request.param == "folder" else request.getfixturevalue("s3_bucket") + "/runs"


def test_everything_is_the_other_runs_but_the_settings(storage, tmp_path):
    donor = donated(storage)
    config = configured(storage, "heir", **{"optim.base_lr": 0.25, "model.drop_path": 0.5})
    take_over(donor, config)
    files, root = filesystem(storage)
    for run in ("donor", "heir"):
        (tmp_path / run).mkdir()
        pafs.copy_files(f"{root}/{run}/{NAME}", str(tmp_path / run), source_filesystem=files)
    for name in FILES[:-1]:
        assert (tmp_path / "heir" / name).read_bytes() == (tmp_path / "donor" / name).read_bytes()
    heir, before = read_run(tmp_path / "heir"), read_run(tmp_path / "donor")
    assert dataclasses.replace(heir.state, config={}) == dataclasses.replace(before.state, config={})
    check_continues(heir.state, config, LABELS, "abc")
    with pytest.raises(UserError, match=r"--model\.drop-path was 0\.0, is 0\.5, --optim\.base-lr was"):
        check_continues(before.state, config, LABELS, "abc")


def test_ray_train_goes_on_from_the_copy_and_later_starts_leave_it_there(storage):
    take_over(donated(storage), configured(storage, "heir", **{"optim.base_lr": 0.25}))
    folder = f"{storage}/heir"
    assert latest_position(folder) == Position(epoch=2)
    assert listed_checkpoint(folder, Position(epoch=2)) == NAME
    assert listed_checkpoint(folder, Position(epoch=1)) is None
    ((_, metrics),) = ray.train.Result.from_path(folder).best_checkpoints
    assert metrics["score"] == 0.5
    assert read_configuration(folder).optim.base_lr == 0.25


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("optim.epochs", 99),
        ("batch.micro_batch", 8),
        ("model.num_frames", 16),
        ("model.options.down_ratio", 2),
        ("seed", 5),
        ("augment.repeats", 2),
        ("optim.kind", "sgd"),
        ("optim.ema_decay", 0.9),
    ],
)
def test_what_cannot_change_in_the_middle_of_a_run_is_refused_by_name(tmp_path, name, value):
    donor = donated(str(tmp_path))
    with pytest.raises(UserError, match=rf"{name} cannot change in the middle of a run"):
        take_over(donor, configured(str(tmp_path), "heir", **{name: value, "optim.base_lr": 0.25}))
    assert not (tmp_path / "heir").exists()


def test_every_setting_that_may_change_exists():
    for name in MAY_CHANGE:
        section, field = name.split(".")
        with_settings(toy(), {name: getattr(getattr(toy(), section), field)})


def test_a_copy_that_was_interrupted_is_no_checkpoint_and_made_again(tmp_path):
    donor, config = donated(str(tmp_path)), configured(str(tmp_path), "heir", **{"optim.base_lr": 0.25})
    take_over(donor, config)
    copy = tmp_path / "heir" / NAME
    (copy / STATE_FILE).unlink()
    (copy / FILES[0]).write_bytes(b"half")
    (tmp_path / "heir" / "checkpoint_manager_snapshot.json").unlink()
    assert latest_position(str(tmp_path / "heir")) == Position()
    take_over(donor, config)
    assert read_run(copy).tensors["weights"]["w"].tolist() == [0.0, 1.0, 2.0]
    assert latest_position(str(tmp_path / "heir")) == Position(epoch=2)


def test_a_run_that_has_begun_is_left_alone_though_the_other_checkpoint_is_gone(tmp_path):
    donor, config = donated(str(tmp_path)), configured(str(tmp_path), "heir", **{"optim.base_lr": 0.25})
    take_over(donor, config)
    for file in Path(donor).iterdir():
        file.unlink()
    before = {path: path.read_bytes() for path in (tmp_path / "heir").rglob("*") if path.is_file()}
    take_over(donor, config)
    assert {path: path.read_bytes() for path in (tmp_path / "heir").rglob("*") if path.is_file()} == before


def test_a_checkpoint_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match=r"no access to .*/nowhere"):
        take_over(str(tmp_path / "nowhere"), configured(str(tmp_path), "heir"))
    assert not (tmp_path / "heir").exists()


def test_a_new_state_says_what_the_run_is_now(tmp_path):
    take_over(donated(str(tmp_path)), configured(str(tmp_path), "heir", **{"augment.mixup_alpha": 0.5}))
    state = json.loads((tmp_path / "heir" / NAME / STATE_FILE).read_text())
    assert (state["config"]["name"], state["config"]["augment"]["mixup_alpha"]) == ("heir", 0.5)
