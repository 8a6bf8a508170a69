"""What a person sees on a terminal while a run goes on."""

from __future__ import annotations

import io
import time

import pytest
from rich.console import Console

from cast_ray.watching.panel import Panel
from cast_ray.watching.startup import Startup

UNREADABLE = {"kind": "unreadable", "epoch": 1, "clip_id": "clip-7", "reason": "no video stream"}


@pytest.fixture
def panel(terminal):
    startup = Startup(time.time() - 11)
    startup.reached("imports", time.time() - 5)
    panel = Panel(terminal, name="my [run]", epochs=50, steps=4000, startup=startup)
    yield panel
    panel.close()


def frame(panel: Panel, width: int = 80) -> list[str]:
    """The panel as it stands now."""
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(panel._render())
    return console.file.getvalue().splitlines()


def test_before_the_first_step_it_says_what_is_waited_for(panel, reached):
    text = "\n".join(frame(panel))
    assert "my [run]" in text
    assert "epoch 0.00 of 50" in text
    assert "waiting for the workers; until now: imports 6" in text
    panel.show(reached("workers", time.time()))
    assert "loading the network" in "\n".join(frame(panel))
    panel.show(reached("model", time.time()))
    assert "waiting for the first clips" in "\n".join(frame(panel))


@pytest.mark.parametrize("width", [80, 100, 120])
def test_a_step_shows_all_figures_within_the_width(panel, step_row, epoch_row, width):
    panel.show(epoch_row)
    panel.show(step_row(bad_clips=3))
    lines = frame(panel, width)
    text = "\n".join(lines)
    for expected in (
        "epoch 1.50 of 50",
        "step 120 of 4000",
        "1:02:05 left",
        "2.346",
        "1.50e-03, gradient norm 0.50",
        "101  4 workers, 25.2 each, slowest 24.5 (worker 3)",
        "12%",
        "at most 40% (worker 3)",
        "at most 2.1 GB a worker",
        "bad clips   3",
        "epoch 2: loss 1.500",
        "action 12.5%",
    ):
        assert expected in text
    assert max(map(len, lines)) <= min(width, 100)
    assert "GPU" not in text


def test_the_height_does_not_change_from_step_to_step(panel, step_row):
    panel.show(step_row())
    before = len(frame(panel))
    for step in range(40):
        panel.show(step_row(step=121 + step, loss=100.0 / (step + 1), bad_clips=step))
    assert len(frame(panel)) == before


def test_each_worker_has_a_bar_of_its_wait(panel, step_row):
    workers = step_row()["workers"] | {"data_wait": [0.0, 0.5, 1.0, 0.25]}
    panel.show(step_row(workers=workers))
    assert "| ▄█▂|" in "\n".join(frame(panel))


def test_other_rows_are_lines_that_stay_and_steps_are_not(panel, terminal, step_row, epoch_row, reached):
    panel.show(step_row())
    panel.show(UNREADABLE)
    panel.show(epoch_row)
    panel.show(reached("step", time.time()))
    panel.close()
    text = terminal.file.getvalue()
    assert "unreadable  clip clip-7: no video stream" in text
    assert "validation  loss 1.500" in text
    assert "first step after 11 s: imports 6, step 5" in text
    assert "left 1:02:05" not in text  # the line of a log


def test_silence_is_pointed_out(panel, step_row, monkeypatch):
    panel.show(step_row())
    assert "nothing heard" not in "\n".join(frame(panel))
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 125)
    text = "\n".join(frame(panel))
    assert "nothing heard for 2:05" in text
    assert "1:00:00 left" in text


def test_after_a_failure_it_waits_for_workers_again(panel, step_row):
    panel.show(step_row())
    panel.show({"kind": "failure", "rank": 1, "reason": "worker died"})
    assert "waiting for the workers" in "\n".join(frame(panel))
    panel.show(step_row())
    assert "waiting for the workers" not in "\n".join(frame(panel))


def test_a_terminal_without_unicode_gets_ascii():
    console = Console(file=io.TextIOWrapper(io.BytesIO(), encoding="ascii"), width=80, force_terminal=True)
    panel = Panel(console, name="run", epochs=1, steps=2, startup=Startup(0.0))
    panel.close()
    assert panel._bars.isascii()
