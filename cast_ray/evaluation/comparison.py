"""How several models do on the same clips, or one model on several datasets: figures, intervals, differences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from rich.table import Table

from cast_ray.data.catalog.ek100 import Ek100Subsets
from cast_ray.errors import UserError
from cast_ray.evaluation.alignment import in_order_of
from cast_ray.evaluation.bootstrap import Interval, Replicates, harmonic_replicates, interval, replicates
from cast_ray.evaluation.figures import figures
from cast_ray.evaluation.metrics import Metrics, evaluate, harmonic_mean
from cast_ray.evaluation.predictions import Predictions
from cast_ray.labels import NOUN, VERB, LabelMap

__all__ = ["HARMONIC_MEAN", "Assessment", "Resampling", "across_datasets", "compare", "comparison"]

HARMONIC_MEAN = "harmonic_mean"
"""Name of the harmonic mean of the top-1 accuracies of all label fields."""


@dataclass(frozen=True, kw_only=True)
class Resampling:
    """How confidence intervals are made."""

    resamples: int = 1000
    """Bootstrap resamples."""
    seed: int = 0
    """The same seed gives the same intervals."""
    level: float = 0.95
    """Share of the resamples inside an interval."""

    def __post_init__(self) -> None:
        if self.resamples < 1 or not 0 < self.level < 1:
            raise UserError(
                f"resamples are {self.resamples} and level is {self.level}; give 1 or more, and a level between 0 and 1"
            )


@dataclass(frozen=True, kw_only=True)
class Assessment:
    """Everything that one model's predictions say about it."""

    metrics: Metrics
    figures: Mapping[str, Interval]
    """Figures by name, as fractions; with the harmonic mean over the label fields if there are several."""
    differences: Mapping[str, Interval]
    """For every figure, this model's less the first one's, paired clip by clip; empty for the first."""


def compare(
    runs: Mapping[str, Predictions],
    *,
    subsets: Ek100Subsets | None = None,
    resampling: Resampling | None = None,
) -> dict[str, Assessment]:
    """Assess models on the same clips, and their differences from the first.

    Args:
        runs: predictions by a name for error messages; the clips may come in any order.
        subsets: of EPIC-KITCHENS-100, if that is the dataset.
        resampling: of the confidence intervals.

    Raises:
        UserError: label maps, clips or true labels differ, or the truth of a clip is unknown.
    """
    resampling = resampling or Resampling()
    names, all_predictions = list(runs), list(runs.values())
    first = all_predictions[0]
    others = [in_order_of(names[0], first, name, runs[name]) for name in names[1:]]
    aligned = dict(zip(names, [first, *others], strict=True))
    found = {name: figures(predictions, subsets) for name, predictions in aligned.items()}
    together = {f"{place}/{key}": one for place, run in enumerate(found.values()) for key, one in run.items()}
    drawn = replicates(together, resamples=resampling.resamples, seed=resampling.seed)
    values: dict[str, dict[str, float]] = {}
    resampled: dict[str, dict[str, Replicates]] = {}
    for place, (name, run) in enumerate(found.items()):
        values[name] = {key: one.value for key, one in run.items()}
        resampled[name] = {key: drawn[f"{place}/{key}"] for key in run}
        tasks = _tasks(first)
        if len(tasks) > 1:
            values[name][HARMONIC_MEAN] = harmonic_mean(*(values[name][task] for task in tasks))
            resampled[name][HARMONIC_MEAN] = harmonic_replicates([resampled[name][task] for task in tasks])
    base, base_drawn, level = values[names[0]], resampled[names[0]], resampling.level
    return {
        name: Assessment(
            metrics=evaluate(predictions),
            figures={key: interval(value, resampled[name][key], level=level) for key, value in values[name].items()},
            differences={
                key: interval(value - base[key], resampled[name][key] - base_drawn[key], level=level)
                for key, value in values[name].items()
                if name != names[0]
            },
        )
        for name, predictions in aligned.items()
    }


def across_datasets(
    datasets: Mapping[str, Predictions],
    *,
    subsets: Ek100Subsets | None = None,
    resampling: Resampling | None = None,
) -> tuple[dict[str, Assessment], Interval]:
    """Assess a model on each dataset by itself, and the harmonic mean of top-1 over all their label fields.

    The datasets are resampled independently of each other.

    Args:
        datasets: predictions by the name of the dataset.
        subsets: of EPIC-KITCHENS-100, for the datasets with verbs and nouns.
        resampling: of the confidence intervals.

    Raises:
        UserError: the truth of a clip is unknown.
    """
    resampling = resampling or Resampling()
    assessed: dict[str, Assessment] = {}
    values: list[float] = []
    drawn: list[Replicates] = []
    for place, (name, predictions) in enumerate(datasets.items()):
        of_dataset = Resampling(
            resamples=resampling.resamples,
            seed=int(np.random.SeedSequence([resampling.seed, place]).generate_state(1)[0]),
            level=resampling.level,
        )
        fitting = subsets if {VERB, NOUN} <= set(predictions.label_map.fields) else None
        assessed[name] = compare({name: predictions}, subsets=fitting, resampling=of_dataset)[name]
        tasks = {task: one for task, one in figures(predictions).items() if task in _tasks(predictions)}
        values += [one.value for one in tasks.values()]
        drawn += replicates(tasks, resamples=of_dataset.resamples, seed=of_dataset.seed).values()
    return assessed, interval(harmonic_mean(*values), harmonic_replicates(drawn), level=resampling.level)


def comparison(summaries: Mapping[str, Mapping[str, float]], label_map: LabelMap) -> Table:
    """Top-1 accuracy of every model and label field, above that of guessing.

    Args:
        summaries: `Metrics.summary` of each model, by its name.
        label_map: of the clips.
    """
    table = Table(title="top-1 on held-out clips")
    table.add_column("model")
    for field in label_map.fields:
        table.add_column(field, justify="right")
    for model, summary in summaries.items():
        table.add_row(model, *(f"{summary[f'{field}_top1']:.1%}" for field in label_map.fields))
    table.add_row("chance", *(f"{1 / count:.1%}" for count in label_map.num_classes.values()), style="dim")
    return table


def _tasks(predictions: Predictions) -> list[str]:
    """The figures that harmonic means are taken of."""
    return [f"{field}_top1" for field in predictions.label_map.fields]
