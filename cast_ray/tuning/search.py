"""How many trials are run on Ray Tune: started, or continued after a kill, and what came out of each."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import random
import warnings
from dataclasses import asdict
from typing import Any

import numpy as np
import optuna
import pyarrow.fs as pafs
import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import BasicVariantGenerator, SearchAlgorithm
from ray.tune.search.optuna import OptunaSearch
from ray.tune.search.sample import Domain, Sampler
from rich.console import Console

from cast_ray.cluster import needs
from cast_ray.config import RunConfig
from cast_ray.configuration import flat_settings
from cast_ray.data.storage import filesystem, joined, written_whole
from cast_ray.errors import UserError
from cast_ray.tuning.method import Method
from cast_ray.tuning.population import Population
from cast_ray.tuning.results import EPOCH, SCORE, TrialResult, result_of
from cast_ray.tuning.space import Space, count_trials
from cast_ray.tuning.trial import Trial, run_trial
from cast_ray.tuning.watch import SearchLog

__all__ = ["most_at_once", "run_search"]

SEARCH_FILE, TRIALS = "search.json", "trials"
"""In the search's folder: what was asked for; Tune's own folder."""
HEAD = "node:__internal_head__"
"""Ray's name for a resource of which the head node has 1, and the others nothing."""
MOST_OF_POPULATION = 20
"""Trials of a population at the same time; with more, drivers would leave too little of the head node for Ray Train."""
DRIVER = {HEAD: 0.001}
"""What Tune reserves for a trial's driver: its place is the head node, and no part of a core, which would be missing
where a trial fits just so."""


def run_search(trial: Trial, space: Space, method: Method, *, folder: str, console: Console) -> tuple[TrialResult, ...]:
    """Run all trials, or what is left of them if the folder has an interrupted search with the same settings.

    Args:
        trial: what all trials have in common; its base's storage is the folder for their runs.
        space: what is varied.
        method: how.
        folder: path or URI of the search.
        console: where progress goes.

    Raises:
        UserError: the folder holds another search; or all trials failed.
    """
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # the newer output prints tables although verbose is 0
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    asked = _description(trial, space, method)
    started = _begun(folder, asked)
    at_once: int | None
    resources, at_once = DRIVER, method.max_concurrent or most_at_once(trial.base)
    if method.scheduler == "pbt":  # all of a population exist from the start, and Tune runs as many as fit
        resources, at_once = {HEAD: _share_of_head(at_once)}, None
        warnings.filterwarnings("ignore", message="Consider boosting PBT")  # with actors used again: ours are runs
        random.seed(method.seed)  # its scheduler draws from these two
        np.random.seed(method.seed)
    trainable = tune.with_resources(tune.with_parameters(run_trial, trial=trial), resources)
    log = SearchLog(
        console, trials=count_trials(space, method.trials), epochs=trial.base.optim.epochs, fields=tuple(space)
    )
    place = joined(folder, TRIALS)
    if started and tune.Tuner.can_restore(place):
        console.print(f"search: {folder} goes on where it was interrupted")
        tuner = tune.Tuner.restore(
            place, trainable=trainable, resume_unfinished=True, resume_errored=True, param_space=dict(space)
        )
        # Ray has no other way to change these of a search that goes on; the callback's console is not in its files.
        tuner._local_tuner._run_config.callbacks = [log]
        tuner._local_tuner._tune_config.max_concurrent_trials = at_once
    else:
        tuner = tune.Tuner(
            trainable,
            param_space=dict(space),
            tune_config=tune.TuneConfig(
                metric=SCORE,
                mode="max",
                search_alg=_search_algorithm(method, space, at_once),
                scheduler=_scheduler(method, trial, space),
                num_samples=method.trials,
                max_concurrent_trials=at_once,
                trial_dirname_creator=lambda trial: trial.trial_id,
            ),
            run_config=tune.RunConfig(name=TRIALS, storage_path=folder, callbacks=[log], verbose=0),
        )
    results = tuple(result_of(result) for result in tuner.fit())
    if all(result.error is not None for result in results):
        raise UserError(f"all {len(results)} trials failed; the first: {results[0].error}")
    return results


def most_at_once(config: RunConfig) -> int:
    """Trials that the cluster has room for at the same time, by whichever resource is scarcest; at least one.

    Tune knows nothing of the workers of a trial: without the limit, trials would wait for each other's.
    """
    has = ray.cluster_resources()
    config = dataclasses.replace(config, scale=dataclasses.replace(config.scale, min_workers=None))  # each has all
    return max(1, min(math.floor(has.get(name, 0) / amount) for name, amount in needs(config).items()))


def _share_of_head(at_once: int) -> float:
    """How much of the head node a driver has to reserve so that just so many fit, `MOST_OF_POPULATION` at most.

    A little more than 1 / (at_once + 1), in the parts of 1 / 10000 in which Ray counts. One part more than is needed,
    because Ray cuts 0.3334 to 0.3333 on the way: a third driver would fit beside two, and take what Ray Train's own
    actors need of the head node, a thousandth for each run. Then all trials would wait for ever.
    """
    return (10_000 // (min(at_once, MOST_OF_POPULATION) + 1) + 2) / 10_000


def _scheduler(method: Method, trial: Trial, space: Space) -> TrialScheduler:
    epochs = trial.base.optim.epochs
    if method.scheduler == "pbt":
        return Population(trial, space, method)
    if method.scheduler == "asha":
        # One more than there are: a trial that reaches the end is to end by itself, and frees its workers.
        return ASHAScheduler(
            time_attr=EPOCH,
            max_t=epochs + 1,
            grace_period=min(method.grace_epochs, epochs),
            reduction_factor=method.keep_one_of,
        )
    return FIFOScheduler()


def _search_algorithm(method: Method, space: Space, at_once: int | None) -> SearchAlgorithm | OptunaSearch:
    if method.search == "tpe" and method.scheduler != "pbt":
        grids = [name for name, drawn in space.items() if isinstance(drawn, dict)]
        if grids:
            raise UserError(
                f"the search space has a grid for {', '.join(grids)}, which method.search tpe cannot draw from; give "
                "--method.search random, or tune.choice in the space"
            )
        return OptunaSearch(seed=method.seed)
    # Tune applies its own limit to every search but this one.
    return BasicVariantGenerator(random_state=method.seed, max_concurrent=at_once or 0)


def _description(trial: Trial, space: Space, method: Method) -> dict[str, Any]:
    """Everything that must be the same when a search goes on."""
    drawn = {name: _text(values) for name, values in space.items()}
    chosen = {name: value for name, value in asdict(method).items() if name != "max_concurrent"}
    return {
        "base": dict(flat_settings(trial.base.to_dict())),
        "datasets": dict(trial.datasets),
        "variants": {name: dict(settings) for name, settings in trial.variants.items()},
        "views": trial.views,
        "space": drawn,
        "method": chosen,
    }


def _text(drawn: Any) -> str:
    """A domain as text; Ray's own says nothing of its limits, and has addresses that differ from process to process."""
    if isinstance(drawn, Domain | Sampler):
        inner = {name: _text(value) for name, value in vars(drawn).items() if name != "sampler"}
        sampler = drawn.get_sampler() if isinstance(drawn, Domain) else getattr(drawn, "sampler", None)
        return f"{type(drawn).__name__}{inner}" + (f" {_text(sampler)}" if sampler is not None else "")
    return drawn.__qualname__ if callable(drawn) else repr(drawn)


def _begun(folder: str, asked: dict[str, Any]) -> bool:
    """Whether the folder holds this search already; if it holds none, note what it is.

    Raises:
        UserError: it holds another one.
    """
    asked = json.loads(json.dumps(asked, default=str))
    storage, path = filesystem(folder)
    if storage.get_file_info(f"{path}/{SEARCH_FILE}").type == pafs.FileType.File:
        with storage.open_input_stream(f"{path}/{SEARCH_FILE}") as source:
            content = source.read()
        try:
            before = json.loads(content)
        except ValueError as error:
            raise UserError(
                f"{joined(folder, SEARCH_FILE)} is damaged: {error}; start again with another --name"
            ) from error
        changed = [
            f"{section} {name}".rstrip() + f": was {old.get(name)}, is {new.get(name)}"
            for section in asked
            for old, new in [_both(before.get(section), asked[section])]
            for name in sorted(old.keys() | new.keys())
            if old.get(name) != new.get(name)
        ]
        if changed:
            raise UserError(
                f"{folder} holds a search with other settings: {'; '.join(changed)}; give the same ones to go on, or "
                "another --name"
            )
        return True
    storage.create_dir(path, recursive=True)
    with written_whole(storage, f"{path}/{SEARCH_FILE}") as sink:
        sink.write(json.dumps(asked, indent=2).encode())
    return False


def _both(before: Any, now: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Two values as dictionaries, so that they can be compared entry by entry."""
    return (before if isinstance(before, dict) else {"": before}), (now if isinstance(now, dict) else {"": now})
