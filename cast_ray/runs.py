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
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cast_ray.cluster import call_task, check_room, connect
from cast_ray.config import RunConfig
from cast_ray.configuration import write_configuration
from cast_ray.data.decode import check_decoder
from cast_ray.data.manifest import TRAIN, VALIDATION, Manifest
from cast_ray.data.prepare import prepare_run
from cast_ray.data.shards import ShardedDataset, open_complete
from cast_ray.data.storage import check_writable, filesystem
from cast_ray.evaluation.metrics import Metrics, evaluate
from cast_ray.evaluation.playable import playable
from cast_ray.evaluation.predict import Evaluation, predict
from cast_ray.evaluation.predictions import write_predictions
from cast_ray.evaluation.report import RunRecord, Video, choose_examples, write_report
from cast_ray.training.build import check_network
from cast_ray.training.checkpoint import read_history
from cast_ray.training.trainer import TrainedRun, train
from cast_ray.training.worker import train_augment

__all__ = ["FinishedRun", "complete", "named_by_settings", "run", "show"]


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
    config = complete(config)
    config.check_experts()
    train_augment(config)  # only to find a malformed RandAugment text now, and not on the workers
    if config.data.decoder is not None:
        check_decoder(config.data.decoder)
    clips = source if isinstance(source, Manifest) else open_complete(source)
    for split in (TRAIN, VALIDATION):
        clips.split(split)
    check_writable(config.storage)
    local = connect(worker_logs=worker_logs)
    check_room(config, may_grow=not local, console=console)
    # On a worker, where the weights must be readable; a wrong file or size is found before hours of preparation.
    for note in call_task(check_network, config, clips.label_map):
        console.print(f"weights: {note}", soft_wrap=True, highlight=False, markup=False)
    dataset = prepare_run(clips, config.storage, console) if isinstance(clips, Manifest) else clips
    console.print(f"train: run '{config.name}', {config.optim.epochs} epochs, {config.scale.num_workers} workers")
    write_configuration(config, f"{config.storage}/{config.name}")
    trained = train(config, dataset, console)
    views = config.test.temporal_views * config.test.spatial_crops
    console.print(f"evaluate: best checkpoint, {views} views of every validation clip")
    evaluation = call_task(predict, trained.best, dataset, VALIDATION, config)
    metrics = evaluate(evaluation.predictions)
    report = _write_results(config, dataset, trained, evaluation, metrics, seconds=time.monotonic() - started)
    show(metrics, evaluation, console)
    finished = FinishedRun(
        name=str(config.name),
        metrics=metrics,
        report=report,
        checkpoint=f"{trained.folder}/{Path(trained.best.path).name}",
    )
    console.print(f"checkpoint: {finished.checkpoint}\nreport: {finished.report}", soft_wrap=True)
    return finished


def complete(config: RunConfig) -> RunConfig:
    """The configuration with a name, and with paths that do not depend on the working folder: workers have another."""
    storage = config.storage if "://" in config.storage else str(Path(config.storage).expanduser().absolute())
    asked = config.weights.sources() | {"network": config.weights.network, "folder": config.weights.folder}
    paths = {name: Path(value).expanduser() for name, value in asked.items() if value is not None}
    # Whatever does not exist is a name, except the folder, which weights may yet be fetched into.
    weights: dict[str, Any] = {
        name: str(path.absolute()) for name, path in paths.items() if name == "folder" or path.exists()
    }
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    return dataclasses.replace(
        config,
        storage=storage,
        weights=dataclasses.replace(config.weights, **weights),
        name=config.name or f"{config.model.name}-{stamp}",
    )


def named_by_settings(config: RunConfig, prefix: str) -> RunConfig:
    """The configuration with a name that its settings determine: the same command continues, another starts anew."""
    settings = hashlib.sha256(repr(config).encode()).hexdigest()[:8]
    return dataclasses.replace(config, name=config.name or f"{prefix}-{settings}")


def show(metrics: Metrics, evaluation: Evaluation, console: Console) -> None:
    """Print the headline figures."""
    console.print(f"top-1 on {len(evaluation.predictions.clip_ids)} validation clips:")
    table = Table()
    table.add_column("field")
    table.add_column("top-1", justify="right")
    for name, value in metrics.summary().items():
        if name.endswith("_top1"):
            table.add_row(name.removesuffix("_top1"), f"{value:.1%}")
    console.print(table)
    for clip_id, reason in evaluation.unreadable:
        console.print(f"  [yellow]unreadable[/]  clip {escape(clip_id)}: {escape(reason)}")


def _write_results(
    config: RunConfig,
    dataset: ShardedDataset,
    trained: TrainedRun,
    evaluation: Evaluation,
    metrics: Metrics,
    *,
    seconds: float,
) -> str:
    """Predictions, metrics and report, written locally and copied into the run's folder; returns the report's place."""
    with trained.last.as_directory() as folder:
        history = read_history(Path(folder))
    unreadable = {row["clip_id"]: row["reason"] for row in history if row["kind"] == "unreadable"}
    record = RunRecord(
        name=str(config.name),
        config=config.to_dict(),
        history=history,
        predictions=evaluation.predictions,
        videos=_videos(dataset, choose_examples(evaluation.predictions)),
        quarantined=sorted((unreadable | dict(evaluation.unreadable)).items()),
        seconds=seconds,
    )
    storage, target = filesystem(trained.folder)
    with tempfile.TemporaryDirectory() as name:
        local = Path(name)
        write_predictions(local / "predictions.parquet", evaluation.predictions)
        (local / "metrics.json").write_text(
            json.dumps({"checkpoint": evaluation.predictions.checkpoint, **metrics.summary()}, indent=2)
        )
        write_report(record, local / "report.html")
        pafs.copy_files(str(local), target, destination_filesystem=storage)
    return f"{trained.folder}/report.html"


def _videos(dataset: ShardedDataset, clip_ids: tuple[str, ...]) -> dict[str, Video]:
    rows = dataset.index.filter(pc.is_in(dataset.index["clip_id"], value_set=pa.array(clip_ids)))
    videos = {row["clip_id"]: playable(dataset, row) for row in rows.to_pylist()}
    return {clip_id: video for clip_id, video in videos.items() if video is not None}
