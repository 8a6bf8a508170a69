"""What a whole run is: prepare the data, train, evaluate the best checkpoint, write the report."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.fs as pafs
import ray
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cast_ray.cluster import check_room, connect, get
from cast_ray.config import RunConfig
from cast_ray.configuration import write_configuration
from cast_ray.data.decode import check_decoder
from cast_ray.data.manifest import TRAIN, VALIDATION, Manifest
from cast_ray.data.prepare import prepare_run
from cast_ray.data.shards import ShardedDataset, open_complete
from cast_ray.data.storage import absolute, check_writable, filesystem, joined
from cast_ray.labels import LabelMap
from cast_ray.watching.startup import Startup, process_start
from cast_ray.watching.watchers import check_tracking
from cast_ray.weights.moved import absolute_paths

if TYPE_CHECKING:
    from cast_ray.evaluation.distributed import Outcome
    from cast_ray.evaluation.metrics import Metrics
    from cast_ray.evaluation.predictions import Predictions
    from cast_ray.training.trainer import TrainedRun

__all__ = ["FinishedRun", "complete", "named_by_settings", "run", "show"]

EXAMPLES = 24
"""Clips that a run keeps to be shown in reports."""


@dataclass(frozen=True, kw_only=True)
class FinishedRun:
    """A run's results and where they are."""

    name: str
    metrics: Metrics
    report: str
    """Path or URI of the HTML report."""
    checkpoint: str
    """Path or URI of the best checkpoint."""


def run(config: RunConfig, source: Manifest | str, *, console: Console, worker_logs: bool = False) -> FinishedRun:
    """Do everything between the annotations and the report, on the cluster of RAY_ADDRESS or on this machine.

    Args:
        config: of the run; a missing name is made from model and time.
        source: the clips; or the path or URI of a dataset that jobs/prepare_data.py has written.
        console: where progress goes.
        worker_logs: print the logs of Ray's workers too.

    Raises:
        UserError: bad input, found before training wherever possible.
    """
    started = time.monotonic()
    startup = Startup(process_start())
    startup.reached("imports")
    config = complete(config)
    config.check_experts()
    if config.data.decoder is not None:
        check_decoder(config.data.decoder)
    clips = source if isinstance(source, Manifest) else open_complete(source)
    for split in (TRAIN, VALIDATION):
        clips.split(split)
    check_writable(config.storage)
    check_tracking(config)
    local = connect(worker_logs=worker_logs)
    startup.reached("cluster")
    check_room(config, may_grow=not local, console=console)
    # On a worker, where the weights must be readable; a wrong file or size is found before hours of preparation.
    check = ray.remote(num_cpus=0)(_check_network).remote(config, clips.label_map)
    from cast_ray.training.trainer import train  # meanwhile: both take seconds

    for note in get(check):
        console.print(f"weights: {note}", soft_wrap=True, highlight=False, markup=False)
    startup.reached("weights")
    dataset = prepare_run(clips, config.storage, console) if isinstance(clips, Manifest) else clips
    startup.reached("preparation")
    console.print(f"train: run '{config.name}', {config.optim.epochs} epochs, {config.scale.num_workers} workers")
    write_configuration(config, config.folder)
    trained = train(config, dataset, console, startup)
    from cast_ray.evaluation.metrics import evaluate
    from cast_ray.evaluation.predict import predict
    from cast_ray.evaluation.predictions import FILE_NAME, read_predictions
    from cast_ray.evaluation.trained import model_of

    views = config.test.temporal_views * config.test.spatial_crops
    console.print(f"evaluate: best checkpoint, {views} views of every validation clip")
    place, model = joined(trained.folder, FILE_NAME), model_of(trained.best).used(config)
    outcome = predict(model, dataset, VALIDATION, output=place, console=console, replace=True)
    predictions = read_predictions(place)
    metrics = evaluate(predictions)
    seconds = time.monotonic() - started
    report = _write_results(config, dataset, trained, predictions, outcome, metrics, seconds=seconds)
    show(metrics, outcome, console)
    finished = FinishedRun(
        name=str(config.name),
        metrics=metrics,
        report=report,
        checkpoint=joined(trained.folder, Path(trained.best.path).name),
    )
    console.print(f"checkpoint: {finished.checkpoint}\nreport: {finished.report}", soft_wrap=True)
    return finished


def _check_network(config: RunConfig, label_map: LabelMap) -> list[str]:
    """What was read from where, in words; `UserError` for what would be one on every worker."""
    from cast_ray.training.build import check_network
    from cast_ray.training.worker import train_augment

    train_augment(config)  # only to find a malformed RandAugment text now
    return check_network(config, label_map)


def complete(config: RunConfig) -> RunConfig:
    """The configuration with a name, and with paths that do not depend on the working folder: workers have another."""
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    return dataclasses.replace(
        config,
        storage=absolute(config.storage),
        weights=absolute_paths(config.weights),
        name=config.name or f"{config.model.name}-{stamp}",
    )


def named_by_settings(config: RunConfig, prefix: str) -> RunConfig:
    """The configuration with a name that its settings determine: the same command continues, another starts anew."""
    settings = hashlib.sha256(repr(config).encode()).hexdigest()[:8]
    return dataclasses.replace(config, name=config.name or f"{prefix}-{settings}")


def show(metrics: Metrics, outcome: Outcome, console: Console) -> None:
    """Print the headline figures."""
    console.print(f"top-1 on {metrics.num_clips} validation clips:")
    table = Table()
    table.add_column("field")
    table.add_column("top-1", justify="right")
    for name, value in metrics.summary().items():
        if name.endswith("_top1"):
            table.add_row(name.removesuffix("_top1"), f"{value:.1%}")
    console.print(table)
    for clip_id, reason in outcome.unreadable:
        console.print(f"  [yellow]unreadable[/]  clip {escape(clip_id)}: {escape(reason)}")


def _write_results(
    config: RunConfig,
    dataset: ShardedDataset,
    trained: TrainedRun,
    predictions: Predictions,
    outcome: Outcome,
    metrics: Metrics,
    *,
    seconds: float,
) -> str:
    """Metrics, report and what a later report needs, in the run's folder; returns the report's place."""
    from cast_ray.evaluation.class_frequency import dataset_training_clips
    from cast_ray.report.contents import make_contents
    from cast_ray.report.examples import choose_examples
    from cast_ray.report.groups import groups_of
    from cast_ray.report.keep import write_kept
    from cast_ray.report.page import write_report
    from cast_ray.report.playable import videos_of
    from cast_ray.report.record import RunRecord
    from cast_ray.training.checkpoint import read_history

    with trained.last.as_directory() as folder:
        history = read_history(Path(folder))
    unreadable = {row["clip_id"]: row["reason"] for row in history if row["kind"] == "unreadable"}
    record = RunRecord(
        name=str(config.name),
        config=config.to_dict(),
        history=history,
        predictions=predictions,
        videos=videos_of(dataset, choose_examples([predictions], count=EXAMPLES)),
        quarantined=sorted((unreadable | dict(outcome.unreadable)).items()),
        seconds=seconds,
        training_clips=dataset_training_clips(dataset),
        dataset=dataset.uri,
    )
    storage, target = filesystem(trained.folder)
    with tempfile.TemporaryDirectory() as name:
        local = Path(name)
        (local / "metrics.json").write_text(
            json.dumps({"checkpoint": predictions.checkpoint, **metrics.summary()}, indent=2)
        )
        write_kept(record, local)
        groups = groups_of(predictions.label_map)
        write_report(make_contents([record], groups=groups), str(local / "report.html"))
        pafs.copy_files(str(local), target, destination_filesystem=storage)
    return joined(trained.folder, "report.html")
