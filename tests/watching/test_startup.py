"""Where the time until the first update goes, and what a failure makes of it."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from cast_ray.watching.startup import Startup, process_start


def started(reached) -> Startup:
    startup = Startup(100.0)
    startup.reached("imports", 105.2)
    startup.reached("cluster", 111.0)
    for milestone, at in (("workers", 125.0), ("model", 129.0), ("data", 136.0), ("step", 136.2)):
        startup.take(reached(milestone, at))
    return startup


def test_every_part_has_its_seconds_and_those_without_any_are_left_out(reached):
    assert str(started(reached)) == "first step after 36 s: imports 5, cluster 6, workers 14, model 4, data 7"


def test_until_the_first_step_it_says_what_is_done(reached):
    startup = Startup(100.0)
    assert str(startup) == "until now: nothing yet"
    startup.reached("imports", 105.0)
    startup.take(reached("workers", 110.0))
    assert not startup.done
    assert str(startup) == "until now: imports 5, workers 5"


def test_a_clock_that_is_behind_gives_no_negative_time(reached):
    startup = Startup(100.0)
    startup.reached("cluster", 120.0)
    startup.take(reached("workers", 119.0))
    startup.take(reached("step", 121.0))
    assert str(startup) == "first step after 21 s: cluster 20, step 1"


def test_after_a_failure_it_counts_anew(reached, monkeypatch):
    startup = started(reached)
    monkeypatch.setattr(time, "time", lambda: 200.0)
    startup.take({"kind": "failure", "rank": 0, "reason": "gone"})
    for milestone, at in (("workers", 208.0), ("model", 211.0), ("data", 215.0), ("step", 217.0)):
        startup.take(reached(milestone, at))
    assert str(startup) == "next step after 17 s: workers 8, model 3, data 4, step 2"


def test_workers_that_are_replaced_without_a_failure_count_from_their_start(reached):
    startup = started(reached)
    for milestone, at in (("workers", 300.0), ("model", 303.0), ("data", 304.0), ("step", 306.0)):
        startup.take(reached(milestone, at))
    assert str(startup) == "next step after 6 s: model 3, data 1, step 2"


def test_the_count_begins_with_the_process():
    code = "import time; t = time.time(); from cast_ray.watching.startup import process_start as p; print(t, p())"
    before = time.time()
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    first_line, start = map(float, output.stdout.split())
    assert before - 1.1 < start <= first_line + 0.1  # the system knows its own start to a second


def test_a_second_run_in_a_process_counts_from_its_own_beginning(monkeypatch):
    monkeypatch.setattr("ray.is_initialized", lambda: True)
    assert time.time() - process_start() < 1
