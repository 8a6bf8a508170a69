"""The progress of a preparation, as it stands in a job's log."""

from __future__ import annotations

import io

from rich.console import Console

from cast_ray.data.progress import ClipProgress


def log(total: int, there: int, steps: list[tuple[float, int]]) -> list[str]:
    """The lines after updates at (seconds, clips done)."""
    now = [0.0]
    console = Console(file=io.StringIO(), width=200)
    with ClipProgress(console, total, there=there, clock=lambda: now[0]) as progress:
        for seconds, done in steps:
            now[0] = seconds
            progress.update(done)
    return console.file.getvalue().splitlines()


def test_a_line_comes_every_half_minute_with_rate_and_time_left() -> None:
    lines = log(100_000, 0, [(float(second), second * 20) for second in range(1, 91)])
    assert lines == [
        "data: 600 of 100,000 clips (1%), 20.0 clips/s, 1:22:50 left",
        "data: 1,200 of 100,000 clips (1%), 20.0 clips/s, 1:22:20 left",
        "data: 1,800 of 100,000 clips (2%), 20.0 clips/s, 1:21:50 left",
    ]


def test_a_line_comes_at_every_tenth_but_not_more_often_than_can_be_read() -> None:
    lines = log(100, 0, [(float(second), second * 2) for second in range(1, 51)])
    assert [line.split(" of ")[0] for line in lines] == [f"data: {done}" for done in range(10, 101, 10)]
    fast = log(100, 0, [(second / 10, second) for second in range(1, 101)])
    assert [line.split(" of ")[0] for line in fast] == ["data: 50", "data: 100"]


def test_clips_of_an_earlier_run_do_not_count_in_the_rate() -> None:
    assert log(1000, 900, [(30.0, 900), (60.0, 930)]) == [
        "data: 900 of 1,000 clips (90%), no new one yet",
        "data: 930 of 1,000 clips (93%), 0.5 clips/s, 0:02:20 left",
    ]
