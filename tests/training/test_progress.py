"""What is shown of a run while it goes on: every row, in order, as it was posted."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest
import ray
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cast_ray.training.progress import describe, shown

STEP = {
    "kind": "step",
    "step": 120,
    "epoch": 1.5,
    "loss": 2.3456,
    "learning_rate": 1.5e-3,
    "clips_per_s": 101.0,
    "data_wait": 0.125,
    "grad_norm": 0.5,
    "seconds_left": 3725.4,
}
EPOCH = {
    "kind": "epoch",
    "epoch": 2,
    "step": 160,
    "validation": {"clips": 30.0, "loss": 1.5, "verb_top1": 0.5, "noun_top1": 0.25, "action_top1": 0.125},
}
SOUNDLESS = {"kind": "soundless", "epoch": 1, "clip_id": "clip-8", "reason": "used without its sound: damaged"}
UNREADABLE = {"kind": "unreadable", "epoch": 1, "clip_id": "clip-7", "reason": "no video stream"}
FAILURE = {"kind": "failure", "rank": 1, "reason": "worker died"}
NOTE = {"kind": "note", "rank": 3, "text": "cannot write [a checkpoint]"}
SKIPPED = {"kind": "skipped", "epoch": 1, "step": 4, "micro_batches": 1, "clip_ids": ["clip-3", "clip-4"]}


class Board:
    """In place of the actor: `take` hands out the rows that were put here."""

    def __init__(self) -> None:
        self.rows: list[dict] = []
        self.take = SimpleNamespace(remote=self._take)

    def _take(self) -> list[dict]:
        rows, self.rows = self.rows, []
        return rows


@pytest.fixture
def board(monkeypatch) -> Board:
    monkeypatch.setattr(ray, "get", lambda rows, timeout: rows)
    return Board()


@pytest.fixture
def terminal() -> Console:
    return Console(file=io.StringIO(), width=80)


def printed(console: Console) -> list[str]:
    return console.file.getvalue().splitlines()


def test_every_posted_row_is_printed_once_and_in_order(board, terminal):
    with shown(board, terminal, None):
        board.rows += [STEP, EPOCH]
        board.rows += [UNREADABLE, FAILURE]
    step, epoch, unreadable, failure = printed(terminal)
    for expected in (
        "epoch   1.50",
        "step   120",
        "loss 2.346",
        "lr 1.50e-03",
        " 101.0 clips/s",
        "data  12%",
        "1:02:05",
    ):
        assert expected in step
    for expected in ("epoch      2", "validation", "loss 1.500", "verb 50.0%  noun 25.0%  action 12.5%"):
        assert expected in epoch
    assert unreadable.split() == ["unreadable", "clip", "clip-7:", "no", "video", "stream"]
    assert "worker 1 failed  worker died; going on from the latest checkpoint" in failure


def test_a_clip_with_broken_sound_is_told_from_an_unreadable_one(board, terminal):
    with shown(board, terminal, None):
        board.rows += [SOUNDLESS]
    (line,) = printed(terminal)
    assert line.split()[:4] == ["no", "sound", "clip", "clip-8:"]


def test_remarks_of_workers_and_clips_that_were_left_out_are_shown(board, terminal):
    with shown(board, terminal, None):
        board.rows += [NOTE, SKIPPED]
    note, skipped = printed(terminal)
    assert note.strip() == "worker 3  cannot write [a checkpoint]"
    assert skipped.strip() == "left out  step 5 of epoch 2: loss not finite on clip-3, clip-4"


def test_rows_posted_before_a_failure_are_printed(board, terminal):
    board.rows.append(UNREADABLE)
    with pytest.raises(RuntimeError, match="training failed"), shown(board, terminal, None):
        raise RuntimeError("training failed")
    assert len(printed(terminal)) == 1


def test_a_lost_cluster_does_not_hide_the_error_of_the_run(board, terminal, monkeypatch):
    def lost(rows, timeout):
        raise ray.exceptions.RayActorError

    monkeypatch.setattr(ray, "get", lost)
    with pytest.raises(RuntimeError, match="training failed"), shown(board, terminal, None):
        raise RuntimeError("training failed")


@pytest.mark.parametrize("text", ["[h264 @ 0x55] bad [/tmp/x]", "[/bold]", "[red]blood[/red]", "C:\\[x]"])
def test_reasons_and_names_are_printed_as_they_are(board, terminal, text):
    with shown(board, terminal, None):
        board.rows += [UNREADABLE | {"clip_id": text, "reason": text}, FAILURE | {"reason": text}]
    unreadable, failure = printed(terminal)
    assert unreadable.endswith(f"clip {text}: {text}")
    assert f"worker 1 failed  {text}; going on" in failure


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (59.6, "1:00"), (61, "1:01"), (3599, "59:59"), (3600, "1:00:00"), (1e5, "27:46:40")],
)
def test_time_left_is_in_hours_minutes_and_seconds(seconds, text):
    assert describe(STEP | {"seconds_left": seconds}).endswith(f"left {text}")


def test_tensorboard_gets_the_figures_of_steps_and_validations(board, terminal, tmp_path):
    with shown(board, terminal, tmp_path / "tensorboard"):
        board.rows += [STEP, STEP | {"step": 130, "loss": 2.0, "grad_norm": None}, EPOCH, UNREADABLE, FAILURE]
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    read = {tag: [(e.step, round(e.value, 4)) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    assert read["train/loss"] == [(120, 2.3456), (130, 2.0)]
    assert read["train/grad_norm"] == [(120, 0.5)]
    assert read["train/learning_rate"] == [(120, 0.0015), (130, 0.0015)]
    assert read["validation/action_top1"] == [(160, 0.125)]
    assert read["validation/loss"] == [(160, 1.5)]
