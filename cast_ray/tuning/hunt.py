"""What a whole search is: prepare the data, run the trials, write results, leaderboard and the best settings."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.fs as pafs
from rich.console import Console
from rich.table import Table

from cast_ray.cluster import call_task, check_room, connect
from cast_ray.config import RunConfig
from cast_ray.configuration import configuration_text
from cast_ray.data.manifest import TRAIN, VALIDATION, Manifest
from cast_ray.data.prepare import prepare_run
from cast_ray.data.shards import ShardedDataset, open_complete
from cast_ray.data.storage import check_writable, filesystem, joined, written_whole
from cast_ray.report.charts import BarChart
from cast_ray.report.pictures import write_pictures
from cast_ray.runs import complete
from cast_ray.training.build import check_network
from cast_ray.tuning.lineage import schedule_rows, takeover_rows, with_lineage
from cast_ray.tuning.method import Method
from cast_ray.tuning.results import TrialResult, ranked
from cast_ray.tuning.search import run_search
from cast_ray.tuning.space import Space
from cast_ray.tuning.trial import Trial, trial_config
from cast_ray.tuning.watch import values_text
from cast_ray.watching.watchers import check_tracking

__all__ = ["RUNS", "hunt", "make_ready", "named", "write_charts", "write_files"]

RUNS = "runs"
"""In the search's folder: the trials' training runs, by the names of the trials."""


def named(config: RunConfig, kind: str) -> tuple[RunConfig, str]:
    """The configuration with absolute paths and a name, made of `kind` and the time if missing; and its folder."""
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    config = complete(dataclasses.replace(config, name=config.name or f"{kind}-{stamp}"))
    return config, config.folder


def make_ready(config: RunConfig, source: Manifest | str, console: Console) -> ShardedDataset:
    """Join the cluster and prepare the data, once for all trials.

    Raises:
        UserError: no room for one trial, no place to write, or data or weights that do not fit.
    """
    clips = source if isinstance(source, Manifest) else open_complete(source)
    for split in (TRAIN, VALIDATION):
        clips.split(split)
    check_writable(config.storage)
    check_tracking(config)
    local = connect()
    check_room(config, may_grow=not local, console=console)
    dataset = prepare_run(clips, config.storage, console) if isinstance(clips, Manifest) else clips
    call_task(check_network, config, dataset.label_map)
    return dataset


def hunt(
    config: RunConfig, source: Manifest | str, space: Space, method: Method, *, views: bool, console: Console
) -> tuple[TrialResult, ...]:
    """Search, on the cluster of RAY_ADDRESS or on this machine, and write everything to STORAGE/NAME.

    Args:
        config: what the space does not vary; its name is that of the search, and is made up if missing.
        source: the clips, or the path or URI of a prepared dataset.
        space: checked.
        method: how to search.
        views: evaluate each trial's best checkpoint with all test views.
        console: where progress goes.

    Raises:
        UserError: bad input; or all trials failed.
    """
    config, folder = named(config, "search")
    dataset = make_ready(config, source, console)
    console.print(f"search: {folder}", soft_wrap=True)
    population = method.scheduler == "pbt"
    trial = Trial(
        base=dataclasses.replace(config, storage=joined(folder, RUNS)),
        datasets={"": dataset.uri},
        views=views,
        exploit_every=method.exploit_every if population else None,
    )
    results = run_search(trial, space, method, folder=folder, console=console)
    if population:
        results = with_lineage(results, trial.base.storage)
    best = ranked(results)[0]
    settings = dataclasses.replace(trial_config(trial, best.values, best.name), storage=config.storage, name=None)
    _write_results(results, settings, tuple(space), folder)
    _show(results, tuple(space), console)
    console.print(
        f"leaderboard: {joined(folder, 'leaderboard.html')}\nbest settings: {joined(folder, 'best.json')}",
        soft_wrap=True,
    )
    return results


def _write_results(results: Sequence[TrialResult], best: RunConfig, fields: tuple[str, ...], folder: str) -> None:
    """Write trials.json and trials.csv with all figures, best.json for --config, and leaderboard.html."""
    from cast_ray.tuning.leaderboard import leaderboard_page

    files = {
        "trials.json": json.dumps([dataclasses.asdict(result) for result in results], indent=2, default=str),
        "trials.csv": _csv(results, fields),
        "best.json": configuration_text(best),
        "leaderboard.html": leaderboard_page(results, fields, best),
    }
    write_files(folder, files)


def write_files(folder: str, files: Mapping[str, str]) -> None:
    """Write text files into a folder, each whole."""
    storage, path = filesystem(folder)
    for name, content in files.items():
        with written_whole(storage, f"{path}/{name}") as sink:
            sink.write(content.encode())


def write_charts(folder: str, charts: Mapping[str, BarChart]) -> None:
    """Write each as NAME.png and NAME.svg into a folder."""
    storage, path = filesystem(folder)
    with tempfile.TemporaryDirectory() as local:
        write_pictures(charts, Path(local))
        pafs.copy_files(local, path, destination_filesystem=storage)


def _show(results: Sequence[TrialResult], fields: tuple[str, ...], console: Console) -> None:
    """Print the leaderboard, ten trials at most, and the trials that failed."""
    table = Table("", "trial", "score", "epochs", "settings")
    for place, result in enumerate(ranked(results)[:10], 1):
        score = "failed" if result.best is None else f"{result.best:.2%}"
        table.add_row(str(place), result.name, score, str(result.epochs), values_text(dict(result.values), fields))
    console.print(table)
    for result in results:
        if result.error is not None:
            console.print(f"  [red]failed[/]  {result.name}: {result.error}", soft_wrap=True, highlight=False)
    for stage in takeover_rows(results):
        settings = values_text(dict(stage.values), fields)
        console.print(
            f"  after epoch {stage.after}: {stage.trial} took over from {stage.taken_from}  {settings}",
            soft_wrap=True,
            highlight=False,
        )
    schedule = schedule_rows(ranked(results)[0])
    if schedule:
        console.print("the best settings are a schedule, whose last part is in best.json:")
    for epochs, stage in schedule:
        console.print(f"  epoch {epochs}: {values_text(dict(stage.values), fields)}", soft_wrap=True, highlight=False)


def _csv(results: Sequence[TrialResult], fields: tuple[str, ...]) -> str:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["trial", "score", "epochs", "error", *fields])
    for result in ranked(results):
        settings = (result.values.get(name) for name in fields)
        writer.writerow([result.name, result.best, result.epochs, result.error, *settings])
    return text.getvalue()
