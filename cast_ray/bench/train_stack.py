"""How fast our whole stack trains: Ray Data, Ray Train, DeepSpeed, checkpoints, logging, as a user starts it."""

from __future__ import annotations

import io
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from rich.console import Console

from cast_ray.bench.train_case import Case

__all__ = ["StackJob", "train_through"]

WORKER = "RayTrainWorker"
"""Part of the title that Ray gives to processes in which training runs."""
SAMPLE_EVERY_S = 0.5


@dataclass(frozen=True, kw_only=True)
class StackJob:
    """One run through the whole stack, on this machine."""

    case: Case
    dataset: str
    storage: str
    name: str


def train_through(job: StackJob) -> dict[str, Any]:
    """Train the case, and read from the run's own history how fast it was after the first epoch.

    Returns:
        "intervals": for each epoch after the first its "seconds" and "processor_seconds" of the training workers, both
        per update, and the share "data_wait" of the time; "first_loss": mean of the first epoch; "start_seconds": from
        before Ray was started to the end of the first update.
    """
    from cast_ray.cluster import connect
    from cast_ray.data.shards import open_complete
    from cast_ray.training.checkpoint import read_history
    from cast_ray.training.trainer import train
    from cast_ray.watching.startup import Startup

    case = job.case
    os.environ.pop("RAY_ADDRESS", None)  # the bare loop runs on this machine too
    config, startup = case.config(job.storage, job.name), Startup(time.time())
    connect()
    startup.reached("cluster")
    with _processor_times() as samples:
        trained = train(config, open_complete(job.dataset), Console(file=io.StringIO()), startup)
    with trained.last.as_directory() as folder:
        rows = [row for row in read_history(Path(folder)) if row["kind"] == "step"]
    seconds = _interval_seconds(rows, case)
    shown_at = _shown_at(Path(trained.folder))
    used = [np.interp(shown_at[row["step"]], *np.transpose(samples)) for row in rows]
    steps = np.diff([0, *(row["step"] for row in rows)])
    return {
        "first_loss": rows[0]["loss"],
        "start_seconds": startup.seconds,
        "intervals": [
            {
                "steps": int(steps[n]),
                "seconds": seconds[n],
                "processor_seconds": float(used[n] - used[n - 1]) / float(steps[n]) / case.workers,
                "data_wait": rows[n]["data_wait"],
            }
            for n in range(1, len(rows))
        ],
    }


def _interval_seconds(rows: list[dict[str, Any]], case: Case) -> list[float]:
    """Seconds per update between one row and the next; without a gap, as the meter starts anew with every row."""
    return [case.global_batch / row["clips_per_s"] for row in rows]


def _shown_at(run: Path) -> dict[int, float]:
    """When the driver got the row of a step, by step; up to half a second after it was made."""
    from tensorboard.backend.event_processing import event_accumulator  # type: ignore[import-untyped]

    events = event_accumulator.EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    return {event.step: event.wall_time for event in events.Scalars("train/loss")}


@contextmanager
def _processor_times() -> Iterator[list[tuple[float, float]]]:
    """While the block runs: time, and processor seconds of all training workers below this process."""
    samples: list[tuple[float, float]] = []
    done = threading.Event()

    def watch() -> None:
        workers: list[psutil.Process] = []
        while not done.wait(SAMPLE_EVERY_S):
            try:
                workers = workers or _training_workers()
                times = [process.cpu_times() for process in workers]
            except psutil.Error:
                workers = []  # they have ended
                continue
            samples.append((time.time(), sum(each.user + each.system for each in times)))

    watcher = threading.Thread(target=watch, name="processor-times", daemon=True)
    watcher.start()
    try:
        yield samples
    finally:
        done.set()
        watcher.join()


def _training_workers() -> list[psutil.Process]:
    below = psutil.Process().children(recursive=True)
    return [process for process in below if any(WORKER in word for word in process.cmdline())]
