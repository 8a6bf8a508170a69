"""What one trial of a search does: a distributed training run of its own, with a figure for Tune after each epoch.

Tune's part of a trial is only the driver, which mostly waits; the run's workers are reserved by Ray Train. The run has
the trial's name, so that a search that is restored continues each interrupted run from its own checkpoint.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import ray
from ray import tune
from ray.train.v2._internal.constants import ENV_VARS_TO_PROPAGATE
from rich.console import Console

from cast_ray.config import RunConfig
from cast_ray.configuration import write_configuration
from cast_ray.training.metrics import score
from cast_ray.tuning.results import EPOCH, RUN, SCORE, VIEWS, report_of
from cast_ray.tuning.space import with_settings
from cast_ray.watching.rows import Row

if TYPE_CHECKING:
    from cast_ray.tuning.member import Member

__all__ = ["DATASET", "VARIANT", "Trial", "run_trial", "trial_config"]

DATASET, VARIANT = "dataset", "variant"
"""Names of values that are no settings: which of several datasets, and of several groups of settings, a trial is for.
"""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What all trials of a search have in common."""

    base: RunConfig
    """Settings that the search does not vary; its storage is the folder for all runs."""
    datasets: Mapping[str, str]
    """Name -> path or URI of prepared shards; trials of a search over one dataset have it under any name."""
    variants: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Name -> settings by dotted name, of which a search over variants tries one after the other."""
    views: bool = False
    """Whether the best checkpoint is evaluated with all test views at the end."""
    exploit_every: int | None = None
    """Epochs between two turns of a population, at which its worst members go on from the best ones' checkpoints; None:
    the trials know nothing of each other."""


def trial_config(trial: Trial, values: Mapping[str, Any], name: str) -> RunConfig:
    """The configuration of the run of one trial."""
    settings = {key: value for key, value in values.items() if key not in (DATASET, VARIANT)}
    variant = trial.variants[values[VARIANT]] if VARIANT in values else {}
    return dataclasses.replace(with_settings(trial.base, settings | dict(variant)), name=name)


def run_trial(values: dict[str, Any], trial: Trial) -> None:
    """The function that Tune calls in a process of its own, with the drawn values.

    Raises:
        UserError: the settings, or the data, do not fit.
    """
    from cast_ray.data.shards import open_complete
    from cast_ray.training.trainer import train
    from cast_ray.watching.startup import Startup, process_start

    _tell_where_the_cluster_is()
    name = tune.get_context().get_trial_id()
    member = None if trial.exploit_every is None else _member(trial, values, name)
    config = trial_config(trial, values, name) if member is None else member.config
    dataset = open_complete(trial.datasets[values.get(DATASET, next(iter(trial.datasets)))])
    console = Console()
    write_configuration(config, config.folder)
    trained = train(config, dataset, console, Startup(process_start()), [member or _ToTune(name)])
    if trial.views:
        _report_views(config, dataset, trained, console)


def _member(trial: Trial, values: Mapping[str, Any], name: str) -> Member:
    """The trial as a member of its population, with all that it has done told to Tune."""
    from cast_ray.tuning.member import Member, read_reference

    checkpoint = tune.get_checkpoint()
    member = Member(trial, values, name, None if checkpoint is None else read_reference(checkpoint))
    member.tell_missed()
    return member


def _tell_where_the_cluster_is() -> None:
    """So that the workers of a trial that is ended early are freed.

    Ray Train's cleaner does that, in a process of its own, which looks for the cluster by itself, fails where two run
    on one machine, and leaves the next trial without cores for ever (Ray 2.60). It inherits what is propagated.
    """
    os.environ["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address
    ENV_VARS_TO_PROPAGATE.add("RAY_ADDRESS")


def _report_views(config: RunConfig, dataset: Any, trained: Any, console: Console) -> None:
    """One more report: the figures of the best checkpoint with all test views.

    Its score is still that of the last validation: the search compares it with trials that were ended early.
    """
    from cast_ray.data.manifest import VALIDATION
    from cast_ray.data.storage import joined
    from cast_ray.evaluation.metrics import evaluate
    from cast_ray.evaluation.predict import predict
    from cast_ray.evaluation.predictions import FILE_NAME, read_predictions
    from cast_ray.evaluation.trained import model_of
    from cast_ray.training.checkpoint import fetch_state

    place = joined(trained.folder, FILE_NAME)
    predict(model_of(trained.best).used(config), dataset, VALIDATION, output=place, console=console, replace=True)
    figures = {name: value for name, value in evaluate(read_predictions(place)).summary().items() if "_top" in name}
    validation = fetch_state(trained.last).validation
    tune.report({EPOCH: config.optim.epochs, SCORE: score(validation), VIEWS: True, RUN: config.name, **figures})


class _ToTune:
    """Reports each validation of a run to Tune."""

    def __init__(self, run: str) -> None:
        self._run = run

    def show(self, row: Row) -> None:
        if row["kind"] == "epoch":
            tune.report(report_of(row, run=self._run))

    def close(self) -> None:
        """Nothing to do."""
