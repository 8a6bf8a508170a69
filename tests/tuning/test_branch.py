"""How a trial goes on from a checkpoint: its own, or another trial's with other settings."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from cast_ray.config import RunConfig
from cast_ray.data.order import Position
from cast_ray.errors import UserError
from cast_ray.labels import LabelMap
from cast_ray.recipes.ek100 import ek100
from cast_ray.recipes.small import small
from cast_ray.training.checkpoint import FILES, STATE_FILE, CheckpointState, read_state, write_checkpoint
from cast_ray.training.continuing import check_continues
from cast_ray.training.folder import latest_position, mend_list
from cast_ray.tuning.branch import go_on

LABELS = LabelMap({"verb": ("cut",), "noun": ("bread",)})


@pytest.fixture
def config(tmp_path) -> RunConfig:
    return dataclasses.replace(small(ek100()), storage=str(tmp_path), name="trial-a")


@pytest.fixture
def other(config, tmp_path) -> Path:
    """The run of another trial with two checkpoints and half a third one."""
    other = dataclasses.replace(config, name="trial-b", optim=dataclasses.replace(config.optim, base_lr=0.125))
    for epoch in (1, 2, 3):
        state = CheckpointState(
            position=Position(epoch=epoch),
            config=other.to_dict(),
            label_map=LABELS,
            dataset="data",
            frozen="frozen",
            validation={"verb_top1": 0.5, "noun_top1": 0.5, "action_top1": 0.25},
        )
        folder = tmp_path / "trial-b" / f"checkpoint_2026-01-0{epoch}"
        folder.mkdir(parents=True)
        write_checkpoint(folder, state, {"weights": {"w": torch.full((2,), float(epoch))}}, [])
    (folder / STATE_FILE).unlink()
    return tmp_path / "trial-b"


def test_an_interrupted_trial_goes_on_with_its_own_run_and_copies_nothing(config, tmp_path):
    assert go_on(str(tmp_path / "trial-a"), config) == config
    branched = tmp_path / "trial-a-from-trial-b-2-0-123456"
    assert go_on(str(branched), config) == dataclasses.replace(config, name=branched.name)
    assert list(tmp_path.iterdir()) == []


def test_a_branch_is_a_run_with_the_other_ones_last_complete_checkpoint_and_its_own_settings(config, other, tmp_path):
    branched = go_on(str(other), config)
    assert branched.optim.base_lr == config.optim.base_lr
    (folder,) = (tmp_path / str(branched.name)).iterdir()
    state, before = read_state(folder), read_state(other / "checkpoint_2026-01-02")
    assert state == dataclasses.replace(before, config=branched.to_dict())
    for name in set(FILES) - {STATE_FILE}:
        assert (folder / name).read_bytes() == (other / "checkpoint_2026-01-02" / name).read_bytes()
    check_continues(state, branched, LABELS, "data")


def test_training_finds_the_copied_checkpoint(config, other, tmp_path):
    folder = f"{tmp_path}/{go_on(str(other), config).name}"
    mend_list(folder)
    assert latest_position(folder) == Position(epoch=2)


def test_branching_again_gives_the_same_run_and_keeps_what_is_there(config, other, tmp_path):
    first = go_on(str(other), config)
    (folder,) = (tmp_path / str(first.name)).iterdir()
    written = (folder / STATE_FILE).stat().st_mtime_ns
    assert go_on(str(other), config) == first
    assert (folder / STATE_FILE).stat().st_mtime_ns == written


def test_other_settings_make_another_branch(config, other):
    changed = dataclasses.replace(config, optim=dataclasses.replace(config.optim, base_lr=0.75))
    assert go_on(str(other), config).name != go_on(str(other), changed).name


def test_a_branch_of_a_branch_names_the_trial_that_it_is_from(config, other, tmp_path):
    branch = go_on(str(other), config)
    third = dataclasses.replace(config, name="trial-c")
    assert str(go_on(f"{tmp_path}/{branch.name}", third).name).startswith("trial-c-from-trial-a-2-0-")


def test_a_run_without_a_checkpoint_cannot_be_gone_on_from(config, tmp_path):
    with pytest.raises(UserError, match="trial-z has no complete checkpoint"):
        go_on(str(tmp_path / "trial-z"), config)
