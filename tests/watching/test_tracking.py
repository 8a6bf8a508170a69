"""What trackers get of a run, and that none of them can hold it up or stop it."""

from __future__ import annotations

import threading
import time

import pytest

from cast_ray.watching import tracking
from cast_ray.watching.once import Once
from cast_ray.watching.tracking import Tracked, figures


class Notes:
    """A tracker that notes its calls, and fails on the steps that it is told."""

    name = "Notes"

    def __init__(self, bad: tuple[int, ...] = ()) -> None:
        self.calls: list[tuple] = []
        self._bad = bad

    def start(self, step: int) -> None:
        self.calls.append(("start", step))

    def log(self, step: int, figures: dict[str, float]) -> None:
        if step in self._bad:
            raise ConnectionError(f"no route for {step}")
        self.calls.append(("log", step, figures))

    def close(self, finished: bool) -> None:
        self.calls.append(("close", finished))


def test_figures_come_in_order_with_the_starts_between_them(step_row, epoch_row, reached):
    notes, said = Notes(), []
    tracked = Tracked(notes, epochs=3, warn=said.append)
    for row in (reached("workers", 1.0), reached("model", 1.0, 110), step_row(), epoch_row, {"kind": "note"}):
        tracked.show(row)
    tracked.close()
    assert [call[:2] for call in notes.calls] == [("start", 110), ("log", 120), ("log", 160), ("close", False)]
    assert notes.calls[1][2] == {
        "train/epoch": 1.5,
        "train/loss": 2.3456,
        "train/learning_rate": 1.5e-3,
        "train/clips_per_s": 101.0,
        "train/data_wait": 0.125,
        "train/grad_norm": 0.5,
        "train/bad_clips": 0.0,
        "train/memory_gb": 2.1,
    }
    assert notes.calls[2][2]["validation/action_top1"] == 0.125
    assert said == []


def test_a_run_whose_last_epoch_is_validated_is_finished(epoch_row):
    notes = Notes()
    tracked = Tracked(notes, epochs=2, warn=pytest.fail)
    tracked.show(epoch_row)
    tracked.close()
    assert notes.calls[-1] == ("close", True)


def test_what_there_is_not_has_no_figure(step_row):
    workers = step_row()["workers"] | {"gpu_memory": [3e9, 5e9, 4e9, 1e9]}
    assert "train/gpu_memory_gb" not in figures(step_row())
    assert figures(step_row(workers=workers))["train/gpu_memory_gb"] == 5.0
    assert "train/grad_norm" not in figures(step_row(grad_norm=None))


def test_a_tracker_that_fails_is_told_of_once_and_tried_again(step_row):
    notes, said = Notes(bad=(2, 3)), []
    tracked = Tracked(notes, epochs=3, warn=said.append)
    for step in (1, 2, 3, 4):
        tracked.show(step_row(step=step))
    tracked.close()
    assert [call[1] for call in notes.calls] == [1, 4, False]
    (text,) = said
    assert text == "Notes does not take the run's figures (ConnectionError: no route for 2); training goes on"


def test_a_tracker_that_hangs_holds_nothing_up(step_row, monkeypatch):
    monkeypatch.setattr(tracking, "CLOSE_S", 0.2)
    held, said = threading.Event(), []
    notes = Notes()
    notes.log = lambda step, figures: held.wait(30)
    tracked = Tracked(notes, epochs=3, warn=said.append)
    before = time.monotonic()
    for step in range(100):
        tracked.show(step_row(step=step))
    tracked.close()
    assert time.monotonic() - before < 10
    assert "not all figures were taken" in said[0]
    held.set()


def test_repeated_steps_are_left_out_by_figure():
    once = Once()
    once.logged(10, ["loss", "rate"])
    once.logged(12, ["loss"])
    once.logged(11, ["loss"])
    assert once.new(12, {"loss": 1.0, "rate": 2.0, "new": 3.0}) == {"rate": 2.0, "new": 3.0}
    assert once.new(13, {"loss": 1.0}) == {"loss": 1.0}
    assert once.new(0, {"other": 1.0}) == {"other": 1.0}
