"""What the run of an ablation table is: every variant with every seed, and the table in the end."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping

from ray import tune
from rich.console import Console
from rich.markdown import Markdown

from cast_ray.config import RunConfig
from cast_ray.data.manifest import VALIDATION, Manifest
from cast_ray.data.storage import joined
from cast_ray.tuning.ablation_table import ablation_chart, ablation_markdown, ablation_means
from cast_ray.tuning.ablations import TABLES, rows_for
from cast_ray.tuning.hunt import RUNS, make_ready, named, write_charts, write_files
from cast_ray.tuning.method import Method
from cast_ray.tuning.search import run_search
from cast_ray.tuning.space import with_settings
from cast_ray.tuning.trial import VARIANT, Trial

__all__ = ["run_ablation"]


def run_ablation(
    config: RunConfig,
    source: Manifest | str,
    table: str,
    *,
    seeds: int,
    weights: Mapping[str, str],
    max_concurrent: int | None,
    console: Console,
) -> str:
    """Train all variants and write table.md, trials.json and the pictures to STORAGE/NAME; returns the folder.

    Args:
        config: of every variant, apart from what it varies.
        source: the clips, or the path or URI of a prepared dataset.
        table: name in `TABLES`.
        seeds: runs of each variant.
        weights: see `rows_for`.
        max_concurrent: runs at the same time; None: as many as the cluster has room for.
        console: where progress goes.

    Raises:
        UserError: bad input, found before anything runs; or all runs failed.
    """
    variants = rows_for(table, config.model.name, weights)
    for settings in variants.values():
        with_settings(config, settings).check_experts()
    config, folder = named(config, f"ablation-{table}")
    dataset = make_ready(config, source, console)
    console.print(f"ablation {table}, {TABLES[table].title}: {len(variants)} variants x {seeds} seeds in {folder}")
    trial = Trial(
        base=dataclasses.replace(config, storage=joined(folder, RUNS)),
        datasets={"": dataset.uri},
        variants=variants,
        views=True,
    )
    space = {
        VARIANT: tune.grid_search(list(variants)),
        "seed": tune.grid_search([config.seed + number for number in range(seeds)]),
    }
    method = Method(search="random", scheduler="none", trials=1, max_concurrent=max_concurrent)
    results = run_search(trial, space, method, folder=folder, console=console)
    found = ablation_means(table, results)
    clips = f"{dataset.split(VALIDATION).num_rows:,} clips"
    if not isinstance(source, Manifest):  # else its shards have the name of a fingerprint
        clips += f" of {joined(source).partition('?')[0].rpartition('/')[2]}"
    markdown = ablation_markdown(table, found, clips)
    rows = [dataclasses.asdict(result) for result in results]
    write_files(folder, {"table.md": markdown, "trials.json": json.dumps(rows, indent=2, default=str)})
    write_charts(folder, {f"table-{table}": ablation_chart(table, found)})
    console.print(Markdown(markdown))
    console.print(
        f"table: {joined(folder, 'table.md')}\npictures: {joined(folder, f'table-{table}.png')}, .svg", soft_wrap=True
    )
    return folder
