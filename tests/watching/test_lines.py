"""What a log says of a run: one line for each row, the most important first."""

from __future__ import annotations

import pytest
from rich.console import Console

from cast_ray.watching.lines import Lines, amount, describe, rate
from cast_ray.watching.startup import Startup

SOUNDLESS = {"kind": "soundless", "epoch": 1, "clip_id": "clip-8", "reason": "used without its sound: damaged"}
UNREADABLE = {"kind": "unreadable", "epoch": 1, "clip_id": "clip-7", "reason": "no video stream"}
FAILURE = {"kind": "failure", "rank": 1, "reason": "worker died"}
NOTE = {"kind": "note", "rank": 3, "text": "cannot write [a checkpoint]"}
SKIPPED = {"kind": "skipped", "epoch": 1, "step": 4, "micro_batches": 1, "clip_ids": ["clip-3", "clip-4"]}


def printed(console: Console, rows: list[dict]) -> list[str]:
    lines = Lines(console, Startup(0.0))
    for row in rows:
        lines.show(row)
    lines.close()
    return console.file.getvalue().splitlines()


def test_a_step_is_one_line_with_what_matters_most_in_the_first_80_columns(log, step_row):
    (line,) = printed(log, [step_row()])
    first = line[:80]
    for expected in ("epoch  1.50", "step   120", "loss 2.346", "101 clips/s", "wait 12%", "left 1:02:05"):
        assert expected in first
    for expected in ("lr 1.5e-03", "norm 0.50", "each 25.2", "mem 2.1 GB"):
        assert expected in line
    assert "GPU" not in line
    assert "bad" not in line
    assert len(line) <= 120


def test_bad_clips_and_the_gpu_are_named_where_there_are_some(log, step_row):
    workers = step_row()["workers"] | {"gpu_memory": [71.2e9] * 4}
    (line,) = printed(log, [step_row(bad_clips=3, workers=workers, grad_norm=None)])
    assert line.endswith("GPU 71.2 GB  bad 3")
    assert "norm" not in line


def test_a_validation_has_its_loss_and_accuracies(log, epoch_row):
    (line,) = printed(log, [epoch_row])
    for expected in ("epoch     2", "validation", "loss 1.500", "verb 50.0%  noun 25.0%  action 12.5%"):
        assert expected in line


def test_what_goes_wrong_is_told_apart(log):
    unreadable, soundless, failure, note, skipped = printed(log, [UNREADABLE, SOUNDLESS, FAILURE, NOTE, SKIPPED])
    assert unreadable.split() == ["unreadable", "clip", "clip-7:", "no", "video", "stream"]
    assert soundless.split()[:4] == ["no", "sound", "clip", "clip-8:"]
    assert "worker 1 failed  worker died; going on from the latest checkpoint" in failure
    assert note.strip() == "worker 3  cannot write [a checkpoint]"
    assert skipped.strip() == "left out  step 5 of epoch 2: loss not finite on clip-3, clip-4"


@pytest.mark.parametrize("text", ["[h264 @ 0x55] bad [/tmp/x]", "[/bold]", "[red]blood[/red]", "C:\\[x]"])
def test_reasons_and_names_are_printed_as_they_are(log, text):
    unreadable, failure = printed(log, [UNREADABLE | {"clip_id": text, "reason": text}, FAILURE | {"reason": text}])
    assert unreadable.endswith(f"clip {text}: {text}")
    assert f"worker 1 failed  {text}; going on" in failure


def test_of_the_start_one_line_is_left(log, reached):
    rows = [reached("workers", 14.0), reached("model", 18.4), reached("data", 25.0), reached("step", 26.0)]
    assert printed(log, rows) == ["  first step after 26 s: workers 14, model 4, data 7, step 1"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-3, "0:00"), (0, "0:00"), (59.6, "1:00"), (61, "1:01"), (3599, "59:59"), (3600, "1:00:00"), (1e5, "27:46:40")],
)
def test_time_left_is_in_hours_minutes_and_seconds(seconds, text, step_row):
    assert f"left {text}  " in describe(step_row(seconds_left=seconds))


@pytest.mark.parametrize(("value", "text"), [(0.0123, "0.012"), (1.234, "1.23"), (12.34, "12.3"), (1234.5, "1234")])
def test_rates_have_the_digits_that_count(value, text):
    assert rate(value) == text


@pytest.mark.parametrize(("value", "text"), [(4.2e8, "0.42 GB"), (9.96e9, "10.0 GB"), (6.12e10, "61.2 GB")])
def test_amounts_of_memory_are_in_gigabytes(value, text):
    assert amount(value) == text
