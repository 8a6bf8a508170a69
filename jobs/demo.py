"""Train CAST on the embedded dataset and show what it learnt: two CPU cores, under ten minutes.

    make demo
    python jobs/demo.py --storage /tmp/demo --train-clips 512 --optim.epochs 4

Real files all the way: clips are rendered and encoded as H.264 with sound, annotated in EPIC-KITCHENS-100's layout,
packed into Parquet shards, streamed by Ray Data, trained by two DeepSpeed workers under Ray Train, and evaluated on
held-out clips. Everything is written below --storage; the same command again continues, or shows the finished run.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from cast_ray.command_line import parse
from cast_ray.config import RunConfig
from cast_ray.errors import UserError, run_as_command
from cast_ray.recipes.toy import toy


@dataclass(frozen=True, kw_only=True)
class Job:
    """Flags of the demonstration beside the recipe's."""

    train_clips: int = 4096
    """Clips to train on."""
    validation_clips: int = 384
    """Held-out clips."""
    worker_logs: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print the logs of Ray's workers too."""
    run: Annotated[RunConfig, tyro.conf.arg(name="")]


def main() -> None:
    """Render, prepare, train, evaluate, report."""
    started = time.monotonic()
    job = parse(Job, Job(run=toy()), description=__doc__ or "")
    if "://" in job.run.storage:
        raise UserError(f"storage is '{job.run.storage}'; the demonstration needs a local folder for its clips")

    # Imported late, so that --help and a wrong flag answer at once.
    from cast_ray.data.catalog.ek100 import read_ek100
    from cast_ray.data.synthetic import synthesize
    from cast_ray.runs import named_by_settings, run

    console = Console()
    clips = synthesize(
        Path(job.run.storage).expanduser() / f"clips-{job.train_clips}-{job.validation_clips}",
        layout="ek100",
        train_clips=job.train_clips,
        validation_clips=job.validation_clips,
        seed=0,
        console=console,
    )
    settings = f"demo-{job.train_clips}-{job.validation_clips}"
    run(
        named_by_settings(job.run, settings),
        read_ek100(clips.videos, clips.annotations),
        console=console,
        worker_logs=job.worker_logs,
    )
    console.print(f"all of it took {(time.monotonic() - started) / 60:.1f} minutes")


if __name__ == "__main__":
    run_as_command(main)
