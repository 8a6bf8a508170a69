"""Evaluate a checkpoint on the validation split of a dataset, with all test views.

    python jobs/evaluate.py runs/ssv2 --data /shared/ssv2/videos --annotations /shared/ssv2/annotations

The checkpoint is its own folder, or the folder of a run, whose best one is taken; both may be URIs. Of UCF-101, give
the official split that it was trained on, and a prepared dataset instead of videos with --shards:

    python jobs/evaluate.py s3://bucket/runs/ucf101-split2 --layout ucf101 --split 2 --data videos --annotations lists
    python jobs/evaluate.py s3://bucket/runs/ssv2 --shards s3://bucket/ssv2

Model, sampling and test views are those of the checkpoint's own configuration. The dataset must have the label map that
the checkpoint was trained with. Prints the accuracies, and writes the predictions if --output is given.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro
from rich.console import Console

from cast_ray.command_line import parse
from cast_ray.config import RunConfig
from cast_ray.data.catalog.layouts import Layout, read_layout
from cast_ray.data.catalog.source import SourceFlags, say
from cast_ray.errors import run_as_command


@dataclass(frozen=True, kw_only=True)
class Job(SourceFlags):
    """Flags of this job."""

    required: ClassVar[tuple[str, ...]] = ("data",)
    reading: ClassVar[tuple[str, ...]] = ("leave_out", "split")

    checkpoint: Annotated[str, tyro.conf.Positional]
    """Path or URI of the folder of a checkpoint, or of a run."""
    layout: Layout = "ssv2"
    """Layout of the folders and annotation files."""
    split: Literal[1, 2, 3] | None = None
    """UCF-101: which of the official splits; None is the first."""
    output: Path | None = None
    """Parquet file to write the predictions to."""
    num_workers: int | None = None
    """Model replicas; None: as in the checkpoint's configuration."""


def main() -> None:
    """Load, predict, print."""
    job = parse(Job, Job(checkpoint=tyro.MISSING), description=__doc__ or "")
    job.check_source()
    console = Console()

    import ray.train

    from cast_ray.cluster import call_task, check_room, connect
    from cast_ray.data.manifest import VALIDATION
    from cast_ray.data.prepare import prepare_run
    from cast_ray.data.shards import open_complete
    from cast_ray.evaluation.metrics import evaluate
    from cast_ray.evaluation.predict import predict, training_data_remark
    from cast_ray.evaluation.predictions import write_predictions
    from cast_ray.export.fetch import find_checkpoint
    from cast_ray.runs import show
    from cast_ray.training.checkpoint import fetch_state

    storage, folder = find_checkpoint(job.checkpoint)
    checkpoint = ray.train.Checkpoint(folder, filesystem=storage)
    say(console, "checkpoint", checkpoint.path)
    state = fetch_state(checkpoint)
    config = RunConfig.from_dict(state.config)
    config = dataclasses.replace(config, test=dataclasses.replace(config.test, num_workers=job.num_workers))
    if job.shards is None:
        on_skip = job.on_skip(console)
        clips = read_layout(job.layout, str(job.data), job.annotations, split=job.split, on_skip=on_skip)
        check_room(config, may_grow=not connect(), console=console)
        dataset = prepare_run(clips, config.storage, console)
    else:
        dataset = open_complete(job.shards)
        check_room(config, may_grow=not connect(), console=console)
    remark = training_data_remark(state, dataset)
    if remark is not None:
        say(console, "note", remark)
    evaluation = call_task(predict, checkpoint, dataset, VALIDATION, config)
    show(evaluate(evaluation.predictions), evaluation, console)
    if job.output is not None:
        console.print(f"predictions: {write_predictions(job.output, evaluation.predictions)}", soft_wrap=True)


if __name__ == "__main__":
    run_as_command(main)
