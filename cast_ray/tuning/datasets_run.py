"""What a comparison over datasets is: the same settings on each, scored by the harmonic mean over all tasks."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping

from ray import tune
from rich.console import Console
from rich.markdown import Markdown

from cast_ray.cluster import call_task, check_room, connect
from cast_ray.config import RunConfig
from cast_ray.data.shards import open_complete
from cast_ray.data.storage import check_writable, joined
from cast_ray.training.build import check_network
from cast_ray.tuning.datasets_table import datasets_balance, datasets_chart, datasets_markdown, datasets_means
from cast_ray.tuning.hunt import RUNS, named, write_charts, write_files
from cast_ray.tuning.method import Method
from cast_ray.tuning.search import run_search
from cast_ray.tuning.trial import DATASET, Trial
from cast_ray.watching.watchers import check_tracking

__all__ = ["run_datasets"]


def run_datasets(
    config: RunConfig,
    shards: Mapping[str, str],
    *,
    seeds: int,
    views: bool,
    max_concurrent: int | None,
    console: Console,
) -> str:
    """Train on every dataset and write datasets.json, datasets.md and the pictures to STORAGE/NAME; returns the folder.

    Args:
        config: for all datasets alike.
        shards: name of a dataset -> path or URI of its shards.
        seeds: runs on each dataset.
        views: evaluate the best checkpoints with all test views.
        max_concurrent: runs at the same time; None: as many as the cluster has room for.
        console: where progress goes.

    Raises:
        UserError: bad input, found before anything runs; or all runs failed.
    """
    config, folder = named(config, "datasets")
    check_writable(config.storage)
    check_tracking(config)
    opened = {name: open_complete(place) for name, place in shards.items()}
    check_room(config, may_grow=not connect(), console=console)
    for dataset in opened.values():
        call_task(check_network, config, dataset.label_map)
    console.print(f"datasets: {', '.join(shards)} x {seeds} seeds in {folder}")
    trial = Trial(
        base=dataclasses.replace(config, storage=joined(folder, RUNS)),
        datasets={name: dataset.uri for name, dataset in opened.items()},
        views=views,
    )
    space = {
        DATASET: tune.grid_search(list(shards)),
        "seed": tune.grid_search([config.seed + number for number in range(seeds)]),
    }
    method = Method(search="random", scheduler="none", trials=1, max_concurrent=max_concurrent)
    results = run_search(trial, space, method, folder=folder, console=console)
    found, balance = datasets_means(results), datasets_balance(results, tuple(shards))
    figures = {name: {field: dataclasses.asdict(mean) for field, mean in of.items()} for name, of in found.items()}
    summary = {"datasets": figures, "harmonic_mean": None if balance is None else dataclasses.asdict(balance)}
    markdown = datasets_markdown(tuple(shards), found, balance)
    write_files(folder, {"datasets.json": json.dumps(summary, indent=2), "datasets.md": markdown})
    write_charts(folder, {"datasets": datasets_chart(found, balance)})
    console.print(Markdown(markdown))
    if balance is None:
        console.print("no harmonic mean: there is no seed with which all datasets have a complete run")
    console.print(
        f"figures: {joined(folder, 'datasets.json')}\npictures: {joined(folder, 'datasets.png')}, .svg", soft_wrap=True
    )
    return folder
