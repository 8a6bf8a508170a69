"""The command `cast-ray metrics`: what predictions are worth, on the terminal and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from rich.console import Console

from cast_ray.command_line import parse
from cast_ray.errors import UserError
from cast_ray.evaluation.bootstrap import Interval
from cast_ray.evaluation.class_frequency import accuracy_by_training_clips, dataset_training_clips
from cast_ray.evaluation.comparison import Assessment, Resampling, across_datasets, compare
from cast_ray.evaluation.metrics_tables import figures_table, frequency_table
from cast_ray.evaluation.predictions import Predictions, read_predictions
from cast_ray.evaluation.submission import SupervisionLevels, check_submission_name, write_submission

if TYPE_CHECKING:
    from cast_ray.data.shards import ShardedDataset

__all__ = ["main"]

DESCRIPTION = """Measure predictions: accuracies with confidence intervals, and for several runs their differences.

Examples: cast-ray metrics runs/first; cast-ray metrics runs/spatial runs/temporal runs/cast --json;
cast-ray metrics runs/ek100 --ek100-annotations epic-kitchens-100-annotations;
one model on several datasets: cast-ray metrics runs/ssv2 runs/k400 runs/ek100 --across-datasets;
the challenge's file: cast-ray metrics test.parquet --submission test.zip --sls 5 3 4."""


@dataclass(frozen=True, kw_only=True)
class MetricsFlags:
    """Flags of `cast-ray metrics`."""

    predictions: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Folders of runs, Parquet files or folders of them, as paths or URIs; compared with the first if there are
    several."""
    across_datasets: bool = False
    """The predictions are one model's on different datasets: each by itself, and the harmonic mean over all."""
    ek100_annotations: Path | None = None
    """Folder with the official annotations of EPIC-KITCHENS-100, for unseen participants and tail classes."""
    train_data: str | None = None
    """Prepared dataset that the runs were trained on, for accuracy by number of training clips of a class."""
    submission: str | None = None
    """File to write for the EPIC-KITCHENS-100 challenge (.zip, or .json to look at); needs --sls and one run. Nothing
    is measured then."""
    sls: tuple[int, int, int] | None = None
    """Supervision levels of the submission: pretraining, training labels, training data, each 0 to 5."""
    resamples: int = 1000
    """Bootstrap resamples of the clips."""
    level: float = 0.95
    """Confidence level of the intervals."""
    seed: int = 0
    """The same seed gives the same intervals."""
    json: bool = False
    """Print JSON, with the figures of every class."""

    def __post_init__(self) -> None:
        if (self.submission is None) != (self.sls is None):
            raise UserError("--submission and --sls belong together, such as --submission test.zip --sls 5 3 4")
        if self.submission is not None:
            check_submission_name(self.submission)
        if self.across_datasets and self.train_data is not None:
            raise UserError("--train-data is for one dataset; leave out --across-datasets")

    @property
    def resampling(self) -> Resampling:
        return Resampling(resamples=self.resamples, seed=self.seed, level=self.level)


def main(arguments: list[str]) -> int:
    """Run `cast-ray metrics ARGUMENTS`; returns the exit status.

    Raises:
        UserError: an unknown flag, predictions that cannot be read or compared, or a file that cannot be written.
    """
    settings = parse(
        MetricsFlags,
        MetricsFlags(predictions=tyro.MISSING),
        description=DESCRIPTION,
        arguments=arguments,
        program="cast-ray metrics",
    )
    if not settings.predictions:
        raise UserError("no predictions are given; give the folder of a run, or a Parquet file of predictions")
    resampling = settings.resampling
    runs: dict[str, Predictions] = {}
    for place in settings.predictions:
        if place in runs:
            raise UserError(f"'{place}' is given twice; give every run once")
        runs[place] = read_predictions(place)
    if settings.submission is not None and settings.sls is not None:
        _submit(runs, settings.submission, settings.sls)
        return 0
    subsets = None
    if settings.ek100_annotations is not None:
        from cast_ray.data.catalog.ek100 import read_ek100_subsets

        subsets = read_ek100_subsets(settings.ek100_annotations)
    overall = None
    if settings.across_datasets:
        assessed, overall = across_datasets(runs, subsets=subsets, resampling=resampling)
    else:
        assessed = compare(runs, subsets=subsets, resampling=resampling)
    counts = None if settings.train_data is None else _training_counts(settings.train_data, runs)
    if settings.json:
        print(json.dumps(_as_json(runs, assessed, overall, counts, resampling), indent=2))  # noqa: T201
    else:
        _show(runs, assessed, overall, counts, resampling)
    return 0


def _submit(runs: Mapping[str, Predictions], target: str, levels: tuple[int, int, int]) -> None:
    if len(runs) != 1:
        raise UserError(f"a submission is of one run, {len(runs)} are given; `cast-ray ensemble` joins several")
    pretraining, labels, data = levels
    ((_, predictions),) = runs.items()
    write_submission(
        target,
        predictions,
        SupervisionLevels(pretraining=pretraining, training_labels=labels, training_data=data),
    )
    Console(stderr=True).print(
        f"submission: {target}, {len(predictions.clip_ids)} clips", soft_wrap=True, highlight=False, markup=False
    )


def _training_counts(data: str, runs: Mapping[str, Predictions]) -> dict[str, Any]:
    """Field -> [classes] training clips."""
    from cast_ray.data.inspection.opening import open_at
    from cast_ray.evaluation.alignment import label_differences

    dataset: ShardedDataset = open_at(data)
    name, first = next(iter(runs.items()))
    differences = label_differences(first.label_map, dataset.label_map)
    if differences:
        raise UserError(
            f"'{data}' and '{name}' have different label maps: {'; '.join(differences)}; give the dataset that the run "
            "was trained on"
        )
    return dataset_training_clips(dataset)


def _show(
    runs: Mapping[str, Predictions],
    assessed: Mapping[str, Assessment],
    overall: Interval | None,
    counts: Mapping[str, Any] | None,
    resampling: Resampling,
) -> None:
    tables = [figures_table(assessed, side_by_side=overall is None, overall=overall)]
    for field, of_field in (counts or {}).items():
        bins = {name: accuracy_by_training_clips(run, field, of_field) for name, run in runs.items()}
        tables.append(frequency_table(field, bins))
    console = Console()
    # A pipe counts as 80 columns wide, and would lose the ends of cells.
    widest = max(console.measure(table, options=console.options.update(max_width=10_000)).maximum for table in tables)
    console = Console(width=max(console.width, widest))
    for number, (name, one) in enumerate(assessed.items(), start=1):
        text = f"{number}  {name}  ({one.metrics.num_clips:,} clips)"
        console.print(text, soft_wrap=True, highlight=False, markup=False)
    for table in tables:
        console.print(table)
    text = (
        f"%, with the {100 * resampling.level:g}% interval of {resampling.resamples} bootstrap resamples of the clips"
    )
    if len(assessed) > 1 and overall is None:
        text += "; differences are paired clip by clip, * where the interval is on one side of 0"
    console.print(text, soft_wrap=True, highlight=False)


def _as_json(
    runs: Mapping[str, Predictions],
    assessed: Mapping[str, Assessment],
    overall: Interval | None,
    counts: Mapping[str, Any] | None,
    resampling: Resampling,
) -> dict[str, Any]:
    """Fractions, not percent; what cannot be computed is null."""
    listed = {name: _run_json(runs[name], one) for name, one in assessed.items()}
    for name, run in runs.items():
        for field, of_field in (counts or {}).items():
            bins = accuracy_by_training_clips(run, field, of_field)
            listed[name].setdefault("by_training_clips", {})[field] = [vars(one) for one in bins]
    return {
        "confidence_level": resampling.level,
        "resamples": resampling.resamples,
        "seed": resampling.seed,
        "runs": listed,
        **({} if overall is None else {"harmonic_mean": _interval_json(overall)}),
    }


def _run_json(predictions: Predictions, assessed: Assessment) -> dict[str, Any]:
    classes = {}
    for field, names in predictions.label_map.names.items():
        one = assessed.metrics.fields[field].per_class
        columns = {"support": one.support, "precision": one.precision, "recall": one.recall, "f1": one.f1}
        classes[field] = [
            {"name": name, **{key: values[index].item() for key, values in columns.items()}}
            for index, name in enumerate(names)
        ]
    return {
        "clips": assessed.metrics.num_clips,
        "checkpoint": predictions.checkpoint,
        "label_map": predictions.label_map.fingerprint,
        "figures": {name: _interval_json(one) for name, one in assessed.figures.items()},
        "difference_to_first": {name: _interval_json(one) for name, one in assessed.differences.items()},
        "calibration_error": {name: one.calibration_error for name, one in assessed.metrics.fields.items()},
        "classes": classes,
    }


def _interval_json(one: Interval) -> dict[str, float | None]:
    return {key: None if value != value else value for key, value in vars(one).items()}
