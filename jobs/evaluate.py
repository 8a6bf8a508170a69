"""Evaluate a checkpoint on the validation split of a dataset, with all test views.

    python jobs/evaluate.py runs/ssv2/checkpoint_2026-11-21_04-47-47.995201 \\
        --data /shared/ssv2/videos --annotations /shared/ssv2/annotations

Model, sampling and test views are those of the checkpoint's own configuration. The dataset must have the label map that
the checkpoint was trained with. Prints the accuracies, and writes the predictions if --output is given.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from cast_ray.command_line import parse
from cast_ray.config import RunConfig
from cast_ray.data.catalog.layouts import Layout, read_layout
from cast_ray.errors import run_as_command


@dataclass(frozen=True, kw_only=True)
class Job:
    """Flags of this job."""

    checkpoint: Annotated[Path, tyro.conf.Positional]
    """Folder of one checkpoint."""
    data: str
    """Folder with the videos."""
    annotations: str | None = None
    """Folder with the annotation files."""
    layout: Layout = "ssv2"
    """Layout of the folders and annotation files."""
    output: Path | None = None
    """Parquet file to write the predictions to."""
    num_workers: int | None = None
    """Model replicas; None: as in the checkpoint's configuration."""


def main() -> None:
    """Load, predict, print."""
    unset = tyro.MISSING
    job = parse(Job, Job(checkpoint=unset, data=unset), description=__doc__ or "")

    import ray.train

    from cast_ray.cluster import call_task, check_room, connect
    from cast_ray.data.manifest import VALIDATION
    from cast_ray.data.prepare import prepare_run
    from cast_ray.evaluation.metrics import evaluate
    from cast_ray.evaluation.predict import predict
    from cast_ray.evaluation.predictions import write_predictions
    from cast_ray.runs import show
    from cast_ray.training.checkpoint import read_state

    console = Console()
    config = RunConfig.from_dict(read_state(job.checkpoint).config)
    config = dataclasses.replace(config, test=dataclasses.replace(config.test, num_workers=job.num_workers))
    manifest = read_layout(job.layout, job.data, job.annotations)
    check_room(config, may_grow=not connect(), console=console)
    dataset = prepare_run(manifest, config.storage, console)
    checkpoint = ray.train.Checkpoint(str(job.checkpoint.absolute()))
    evaluation = call_task(predict, checkpoint, dataset, VALIDATION, config)
    show(evaluate(evaluation.predictions), evaluation, console)
    if job.output is not None:
        console.print(f"predictions: {write_predictions(job.output, evaluation.predictions)}", soft_wrap=True)


if __name__ == "__main__":
    run_as_command(main)
