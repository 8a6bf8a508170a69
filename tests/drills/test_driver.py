"""The driver of a run is killed or asked to stop, a machine is about to go: the same command goes on from there."""

from __future__ import annotations

import random
import re
import signal
import time
from collections.abc import Callable

import pytest

STEPS_PER_EPOCH = 8


def step(job) -> int:
    """Updates of the run at the latest checkpoint."""
    epoch, within = job.position()
    return epoch * STEPS_PER_EPOCH + within


def test_a_driver_killed_at_random_steps(
    train: Callable, faults, drill, check_ended: Callable, ends_undisturbed: Callable
) -> None:
    faults.begin("pace", 0.1)
    rng, in_an_epoch = random.Random(5), 0
    for first, final in ((2, 6), (9, 14), (17, 20)):
        job, goal = train(), rng.randint(first, final)
        job.wait_until(lambda job=job, goal=goal: step(job) >= goal, f"a checkpoint after step {goal}")
        time.sleep(rng.uniform(0, 0.4))
        processes = job.processes()
        drill.inject("SIGKILL to the driver at random steps, three times; the same command again")
        job.kill()
        check_ended(processes)
        in_an_epoch += job.position()[1] > 0
    assert in_an_epoch >= 2
    job = train()
    job.wait_for_steps(1)
    drill.recovered()
    assert "continues after epoch 2" in ends_undisturbed(job)
    drill.result = (
        "the workers end with it, the run goes on from its latest checkpoint; bit for bit the undisturbed run"
    )


def test_a_worker_that_gets_sigterm(train: Callable, faults, drill, ends_undisturbed: Callable) -> None:
    faults.begin("pace", 0.1)
    job = train("--checkpoint-every", "None")
    job.wait_for_steps(2)
    assert not job.checkpoints()
    drill.inject("SIGTERM to a worker, as on a machine that is taken away; no checkpoint yet")
    next(iter(job.processes("RayTrainWorker"))).send_signal(signal.SIGTERM)
    job.wait_for("a worker got SIGTERM")
    (left,) = re.findall(r"all have left after step (\d+), with a checkpoint; going on", job.output())
    job.wait_for_steps(1, after="with a checkpoint; going on")
    drill.recovered()
    assert job.steps(after="with a checkpoint; going on")[0] == int(left) + 1
    ends_undisturbed(job)
    drill.result = "a checkpoint after the step, then the workers start anew; bit for bit the undisturbed run"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_driver_that_is_asked_to_stop(
    number: signal.Signals, train: Callable, faults, drill, check_ended: Callable, ends_undisturbed: Callable
) -> None:
    faults.begin("pace", 0.2)
    job = train("--checkpoint-every", "None")
    job.wait_for_steps(2)
    assert not job.checkpoints()
    processes = job.processes()
    drill.inject(f"{number.name} to the driver, as from `ray job stop` or Ctrl-C; no checkpoint yet")
    job.process.send_signal(number)
    output = job.wait()
    drill.recovered()
    assert job.process.returncode == 128 + number, output
    (stopped,) = re.findall(rf"was stopped by {number.name} after step (\d+); .* with --name run", output)
    assert "Traceback" not in output
    assert step(job) == int(stopped)
    check_ended(processes)
    job = train()
    job.wait_for_steps(1)
    ends_undisturbed(job)
    assert job.steps()[0] == int(stopped) + 1
    drill.result = "a checkpoint after the step, then the run ends and says how to go on; bit for bit, if it does"
