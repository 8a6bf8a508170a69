"""A run's folder after an end at any moment."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow.fs as pafs
import pytest
import ray.train
import torch

from cast_ray.data.order import Position
from cast_ray.labels import LABEL, LabelMap
from cast_ray.training.checkpoint import CheckpointState, write_checkpoint
from cast_ray.training.folder import data_position, latest_position, mend_list, remove_leftovers

LIST = "checkpoint_manager_snapshot.json"


def write(run: Path, name: str, position: Position, accuracy: float | None) -> None:
    folder = run / f"checkpoint_{name}"
    folder.mkdir(parents=True)
    state = CheckpointState(
        position=position,
        config={},
        label_map=LabelMap({LABEL: ("a", "b")}),
        dataset="d",
        frozen="f",
        validation={} if accuracy is None else {"label_top1": accuracy},
    )
    write_checkpoint(folder, state, {"weights": {"w": torch.zeros(1)}, "steps": {"steps": torch.zeros(())}}, [])


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Two validated checkpoints and a later one within an epoch, listed."""
    run = tmp_path / "run"
    write(run, "1", Position(epoch=1), 0.9)
    write(run, "2", Position(epoch=2), 0.4)
    write(run, "3", Position(epoch=2, step=7), None)
    assert mend_list(str(run))
    return run


def names(run: Path) -> set[str]:
    return {path.name for path in run.glob("checkpoint_?")}


@pytest.mark.parametrize("damage", ["missing", "empty", "cut off"])
def test_ray_reads_a_mended_list_with_the_latest_and_the_best_checkpoint(run, damage):
    path = run / LIST
    text = path.read_text()
    path.unlink()
    if damage != "missing":
        path.write_text("" if damage == "empty" else text[: len(text) // 2])
        with pytest.raises(Exception):  # noqa: B017, PT011 - whatever Ray raises, it cannot go on
            ray.train.Result.from_path(str(run))
    assert mend_list(str(run))
    result = ray.train.Result.from_path(str(run))
    assert Path(result.checkpoint.path).name == "checkpoint_3"
    scored = [(Path(checkpoint.path).name, metrics["score"]) for checkpoint, metrics in result.best_checkpoints]
    assert scored == [("checkpoint_3", -1.0), ("checkpoint_2", 0.4), ("checkpoint_1", 0.9)]
    assert latest_position(str(run)) == Position(epoch=2, step=7)


def test_a_list_in_order_is_left_alone(run):
    before = (run / LIST).read_bytes()
    write(run, "4", Position(epoch=3), 0.5)
    assert not mend_list(str(run))
    assert (run / LIST).read_bytes() == before


def test_incomplete_and_damaged_checkpoints_do_not_get_into_a_mended_list(run):
    (run / LIST).unlink()
    (run / "checkpoint_3" / "state.json").unlink()
    (run / "checkpoint_2" / "state.json").write_text("{")
    assert mend_list(str(run))
    assert latest_position(str(run)) == Position(epoch=1)


def test_a_damaged_list_without_any_checkpoint_is_a_run_that_has_not_begun(tmp_path):
    (tmp_path / LIST).write_text("")
    assert not mend_list(str(tmp_path))
    assert latest_position(str(tmp_path)) == Position()
    assert not mend_list(str(tmp_path / "nothing"))
    assert latest_position(str(tmp_path / "nothing")) == Position()


def test_what_ray_does_not_list_is_removed_and_nothing_else(run):
    write(run, "8", Position(epoch=3), 0.5)  # complete, but killed before it was reported
    (run / "checkpoint_9").mkdir()
    (run / "checkpoint_9" / "weights.safetensors.1234.part").write_bytes(b"half")
    (run / "tensorboard").mkdir()
    assert remove_leftovers(pafs.LocalFileSystem(), str(run)) == ["checkpoint_8", "checkpoint_9"]
    assert names(run) == {"checkpoint_1", "checkpoint_2", "checkpoint_3"}
    assert (run / "tensorboard").exists()
    assert json.loads((run / LIST).read_text())


def test_the_first_checkpoint_of_a_run_half_written_is_removed(run):
    (run / LIST).unlink()
    for folder in run.glob("checkpoint_?"):
        (folder / "state.json").unlink()
    assert not mend_list(str(run))
    assert len(remove_leftovers(pafs.LocalFileSystem(), str(run))) == 3
    assert not names(run)


def test_nothing_is_removed_by_a_list_that_cannot_be_read(run):
    (run / LIST).write_text("")
    assert remove_leftovers(pafs.LocalFileSystem(), str(run)) == []
    assert len(names(run)) == 3
    shutil.rmtree(run)
    assert remove_leftovers(pafs.LocalFileSystem(), str(run)) == []


def test_data_goes_on_in_the_next_epoch_when_only_validation_is_left():
    assert data_position(Position(epoch=1, step=4), 5) == Position(epoch=1, step=4)
    assert data_position(Position(epoch=1, step=5), 5) == Position(epoch=2, step=0)
