"""What gets into a run's history, and what a resumed run reads from it."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from cast_ray.errors import UserError
from cast_ray.training import bad_loss, history
from cast_ray.training.bad_loss import BadLosses
from cast_ray.training.history import RunLog
from cast_ray.training.meter import Interval, WorkerInterval


class Board:
    """Stands for the board's actor."""

    def __init__(self) -> None:
        self.rows: list[dict] = []
        self.post = SimpleNamespace(remote=self.rows.append)


@pytest.fixture
def board() -> Board:
    return Board()


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """One worker."""
    for module in (history, bad_loss):
        monkeypatch.setattr(module, "gather", lambda value: [value])


def interval(unreadable: int = 0) -> Interval:
    workers = [
        WorkerInterval(clips_per_s=4.0, data_wait=wait, memory=10**9 + rank, gpu_memory=0)
        for rank, wait in enumerate((0.5, 0.0))
    ]
    return Interval(
        loss=1.5, clips_per_s=8.0, data_wait=0.25, unreadable=unreadable, seconds=20.0, workers=tuple(workers)
    )


def log_step(log: RunLog, done: int, unreadable: int = 0) -> None:
    log.step(interval(unreadable), done=done, steps=100, epoch=done / 10, rate=0.5, grad_norm=None)


def test_a_clip_with_broken_sound_is_reported_once_however_often_it_comes(monkeypatch, board):
    monkeypatch.setattr(history, "gather", lambda found: [found, {"b": "noise", "a": "noise"}])
    log = RunLog(0, board, [])
    for epoch in range(3):
        log.soundless({"c": "noise"}, epoch)
    assert [(row["kind"], row["clip_id"], row["epoch"]) for row in log.rows] == [
        ("soundless", clip_id, 0) for clip_id in "abc"
    ]
    assert board.rows == log.rows


def test_only_rank_0_keeps_and_posts(alone, board):
    log = RunLog(1, board, [])
    log.soundless({"a": "noise"}, 0)
    log.unreadable({"a": "noise"}, 0)
    log_step(log, 1)
    assert log.rows == board.rows == []


def test_a_remark_is_shown_from_every_rank_and_not_kept(board):
    log = RunLog(1, board, [])
    log.say("the disk is full")
    assert board.rows == [{"kind": "note", "rank": 1, "text": "the disk is full"}]
    assert log.rows == []


def test_a_step_is_shown_with_more_than_is_kept(alone, board):
    """What differs from one time to the next stays out of the history, for a resumed run has the undisturbed one's."""
    log = RunLog(0, board, [])
    log.unreadable({"a": "noise", "b": "noise"}, 0)
    log.unreadable({"b": "noise"}, 1)
    log_step(log, 10)
    kept, posted = log.rows[-1], board.rows[-1]
    assert {name: posted[name] for name in kept} == kept
    assert {name: posted[name] for name in posted.keys() - kept.keys()} == {
        "bad_clips": 2,
        "workers": {
            "clips_per_s": [4.0, 4.0],
            "data_wait": [0.5, 0.0],
            "memory": [10**9, 10**9 + 1],
            "gpu_memory": [0, 0],
        },
    }


def test_a_milestone_is_shown_once_by_rank_0_with_the_steps_before_it_and_not_kept(board):
    log = RunLog(0, board, [])
    log_step(log, 30)
    resumed = RunLog(0, board, list(log.rows))
    before = time.time()
    for milestone in ("model", "data", "data"):
        resumed.reached(milestone)
    RunLog(1, board, []).reached("model")
    rows = board.rows[1:]
    assert [(row["kind"], row["milestone"], row["step"]) for row in rows] == [
        ("reached", "model", 30),
        ("reached", "data", 30),
    ]
    assert all(before <= row["at"] <= time.time() for row in rows)
    assert resumed.rows == log.rows


def test_the_time_left_follows_from_the_steps_since_the_last_row(board):
    log = RunLog(0, board, [])
    log_step(log, 10)
    log_step(log, 14)
    assert [row["seconds_left"] for row in board.rows] == [20.0 / 10 * 90, 20.0 / 4 * 86]


def test_a_resumed_run_knows_what_was_unreadable_and_left_out_in_its_epoch_so_far(alone, board):
    log = RunLog(0, board, [])
    for done, unreadable in ((10, 1), (11, 2), (15, 3), (20, 4), (21, 5)):  # epochs of ten steps
        log_step(log, done, unreadable)
    for epoch in (0, 1, 1):
        BadLosses("skip", log, epoch=epoch, micro_batches=1000).found(["a"], 3)
    resumed = RunLog(1, board, list(log.rows))
    assert [resumed.unreadable_in(epoch, 10) for epoch in range(4)] == [1, 9, 5, 0]
    assert [resumed.skipped_in(epoch) for epoch in range(3)] == [1, 2, 0]


def test_ten_bad_micro_batches_in_a_row_end_the_run_and_a_good_one_starts_the_count_anew(alone, board):
    losses = BadLosses("skip", RunLog(0, board, []), epoch=2, micro_batches=10_000)
    for _ in range(9):
        losses.found(["a"], 0)
    losses.none()
    for _ in range(9):
        losses.found(["a"], 0)
    with pytest.raises(UserError, match=r"not finite for 19 micro batches of epoch 3, 10 of them in a row"):
        losses.found(["a"], 0)


@pytest.mark.parametrize(("micro_batches", "allowed"), [(10_000, 100), (80, 10)])
def test_more_than_a_hundredth_of_an_epoch_ends_the_run_but_never_fewer_than_eleven(
    alone, board, micro_batches, allowed
):
    losses = BadLosses("skip", RunLog(0, board, []), epoch=0, micro_batches=micro_batches)
    for _ in range(allowed):
        losses.found(["a"], 0)
        losses.none()
    with pytest.raises(UserError, match=rf"not finite for {allowed + 1} micro batches"):
        losses.found(["a"], 0)


def test_what_was_left_out_before_a_restart_counts(alone, board):
    log = RunLog(0, board, [])
    for _ in range(10):
        losses = BadLosses("skip", log, epoch=0, micro_batches=80)
        losses.found(["a"], 0)
    with pytest.raises(UserError, match="for 11 micro batches"):
        BadLosses("skip", log, epoch=0, micro_batches=80).found(["a"], 0)
