"""A process of a run is killed or hangs; no clip is lost or used twice, for the end is that of the undisturbed run."""

from __future__ import annotations

from collections.abc import Callable

GOING_ON = "going on from the latest checkpoint"
REPLACED = "train: Ray Train's controller failed: "


def test_a_killed_training_worker(train: Callable, faults, drill, ends_undisturbed: Callable) -> None:
    faults.begin("pace", 0.1)
    job = train()
    job.wait_until(lambda: job.position() >= (1, 2), "a checkpoint within the second epoch")
    workers = job.processes("RayTrainWorker")
    assert len(workers) == 2
    drill.inject("SIGKILL to a training worker in the middle of an epoch")
    next(iter(workers)).kill()
    job.wait_for_steps(1, after=GOING_ON)
    drill.recovered()
    assert ends_undisturbed(job).count(GOING_ON) == 1
    drill.result = (
        "both workers start anew from the latest checkpoint; weights bit for bit those of the undisturbed run"
    )


def test_a_killed_decode_worker(train: Callable, faults, drill, ends_undisturbed: Callable) -> None:
    faults.begin("decoding", 1)
    job = train()
    job.wait_for_steps(2)
    decoders = job.processes("ClipLoader")
    assert decoders
    drill.inject("SIGKILL to a decode worker at work")
    for decoder in decoders:
        decoder.kill()
    faults.end("decoding")
    seen = len(job.steps())
    job.wait_for_steps(seen + 4)
    drill.recovered()
    assert GOING_ON not in ends_undisturbed(job)
    drill.result = (
        "Ray decodes its clips again, training waits for them; weights bit for bit those of the undisturbed run"
    )


def test_a_worker_that_hangs(train: Callable, faults, drill, ends_undisturbed: Callable) -> None:
    faults.begin("pace", 0.1)
    job = train("--scale.hang-timeout-s", "30")
    job.wait_until(lambda: job.position() >= (0, 4), "a checkpoint")
    faults.begin("hang")
    job.wait_until(lambda: not faults.pending("hang"), "the hang")
    drill.inject("a worker hangs, and the other with it; --scale.hang-timeout-s 30")
    job.wait_for("no sign of life for ")
    job.wait_for_steps(1, after=GOING_ON)
    drill.recovered()
    ends_undisturbed(job)
    drill.result = "its watchdog ends it after 30 s, both start anew; weights bit for bit those of the undisturbed run"


def test_a_killed_controller(train: Callable, faults, drill, check_ended: Callable, ends_undisturbed: Callable) -> None:
    """Ray Train's: it directs the workers, which end with it."""
    faults.begin("pace", 0.1)
    job = train()
    job.wait_until(lambda: job.position() >= (0, 4), "a checkpoint")
    (controller,) = job.processes("TrainController")
    workers = job.processes("RayTrainWorker")
    drill.inject("SIGKILL to Ray Train's controller")
    controller.kill()
    job.wait_for(REPLACED)
    job.wait_until(lambda: job.processes("RayTrainWorker").keys() - workers.keys(), "new workers")
    job.wait_for_steps(len(job.steps()) + 1)  # those that the lost workers had done are shown by now
    drill.recovered()
    check_ended(workers)
    output = ends_undisturbed(job)
    assert output.count(REPLACED) == 1
    assert "Traceback" not in output
    drill.result = "a new one starts new workers; weights bit for bit those of the undisturbed run"
