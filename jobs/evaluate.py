"""Evaluate a trained model on the validation split of a dataset, with all test views.

    python jobs/evaluate.py runs/ssv2 --data /shared/ssv2/videos --annotations /shared/ssv2/annotations

The model is a checkpoint, a run, whose best one is taken, or a file of `cast-ray export`; all may be URIs. UCF-101 has
official splits: give that of the training. --shards is a prepared dataset instead of videos:

    python jobs/evaluate.py s3://bucket/runs/ucf101-split2 --layout ucf101 --split 2 --data videos --annotations lists
    python jobs/evaluate.py s3://bucket/runs/ssv2 --shards s3://bucket/ssv2 --output s3://bucket/ssv2-test --per-view

Where no flag says otherwise, sampling and test views are those of the training, whose label map the dataset must have.
The predictions are a folder of Parquet files (docs/evaluation.md); the same command again goes on after a kill.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import tyro
from rich.console import Console

from cast_ray.command_line import parse
from cast_ray.data.catalog.layouts import Layout, read_layout
from cast_ray.data.catalog.source import SourceFlags, say
from cast_ray.errors import run_as_command
from cast_ray.evaluation.flags import ModelFlags


@dataclass(frozen=True, kw_only=True)
class Job(ModelFlags, SourceFlags):
    """Flags of this job."""

    required: ClassVar[tuple[str, ...]] = ("data",)
    reading: ClassVar[tuple[str, ...]] = ("leave_out", "split")

    checkpoint: Annotated[str, tyro.conf.Positional]
    """Path or URI of the folder of a checkpoint or of a run, or of an exported file."""
    layout: Layout = "ssv2"
    """Layout of the folders and annotation files."""
    split: Literal[1, 2, 3] | None = None
    """UCF-101: which of the official splits; None is the first."""
    output: str | None = None
    """Folder or URI for the predictions; None: a folder of their own in evaluations/ under the run's storage."""
    per_view: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Write the probabilities of each view too."""
    max_unreadable: float | None = None
    """Share of the clips that may be unreadable; None: as in training."""


def main() -> None:
    """Load, predict, print."""
    job = parse(Job, Job(checkpoint=tyro.MISSING), description=__doc__ or "")
    job.check_source()
    console = Console()

    from cast_ray.cluster import connect
    from cast_ray.data.manifest import VALIDATION
    from cast_ray.data.prepare import prepare_run
    from cast_ray.data.shards import open_complete
    from cast_ray.data.storage import absolute, joined
    from cast_ray.evaluation.distributed import check_replicas
    from cast_ray.evaluation.metrics import evaluate
    from cast_ray.evaluation.predict import evaluation_name, predict, training_data_remark
    from cast_ray.evaluation.predictions import read_predictions
    from cast_ray.evaluation.trained import model_at
    from cast_ray.runs import show

    model = job.applied(model_at(job.checkpoint, job.weights), max_unreadable=job.max_unreadable)
    say(console, "checkpoint", model.place)
    storage = absolute(model.config.storage)
    if job.shards is None:
        clips = read_layout(job.layout, str(job.data), job.annotations, split=job.split, on_skip=job.on_skip(console))
    else:
        dataset = open_complete(job.shards)
    check_replicas(model, may_grow=not connect(), console=console)
    if job.shards is None:
        dataset = prepare_run(clips, storage, console)
    if (remark := training_data_remark(model, dataset)) is not None:
        say(console, "note", remark)
    name = evaluation_name(model, dataset, VALIDATION, per_view=job.per_view)
    output = absolute(job.output or joined(storage, "evaluations", name))
    outcome = predict(
        model,
        dataset,
        VALIDATION,
        output=output,
        console=console,
        per_view=job.per_view,
        clips_per_part=job.clips_per_part,
        unreadable_flag="--max-unreadable",
    )
    show(evaluate(read_predictions(output)), outcome, console)
    say(console, "predictions", f"{output} ({outcome.rate})")


if __name__ == "__main__":
    run_as_command(main)
