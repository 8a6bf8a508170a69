"""How a run's figures get into MLflow; a run that goes on is the same one there."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cast_ray.watching.identity import known_id, remember_id
from cast_ray.watching.once import Once

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = ["MlflowRun", "check_mlflow"]

EXPERIMENT = "cast_ray"
LONGEST_VALUE = 6000
"""Characters of a parameter that MLflow takes."""
NOISE = ("mlflow.store.db.utils", "alembic.runtime.migration")
"""Loggers that tell every step of making a database."""

PROGRAM = "mlflow"
"""Its library, setting, and name in `cast_ray.watching.identity`."""


def check_mlflow(place: str) -> None:
    """Ask the server or database something; raises what it raises, after one retry and not after minutes of them."""
    from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_MAX_RETRIES as RETRIES

    usual = RETRIES.get_raw()
    RETRIES.set(1)
    try:
        _client(place).search_experiments(max_results=1)
    finally:
        if usual is None:
            RETRIES.unset()
        else:
            RETRIES.set(usual)


class MlflowRun:
    """One run in MLflow. MLflow cannot take figures back: of steps that are repeated, the first ones stay.

    Args:
        place: tracking URI, or a folder for a database.
        folder: path or URI of our run.
        run: its name.
        config: its settings by flat names; they are parameters there.

    Raises:
        Exception: the server or database cannot be used; see `check_mlflow`, which is to be called before.
    """

    name = "MLflow"

    def __init__(self, place: str, *, folder: str, run: str, config: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        self._client = _client(place)
        self._once = Once()
        self._id = known_id(folder, PROGRAM) or ""
        if self._id:
            self._go_on()
            return
        created = self._client.create_run(self._experiment(), run_name=run, tags={"cast_ray.folder": folder})
        self._id = created.info.run_id
        parameters = [Param(name, str(value)[:LONGEST_VALUE]) for name, value in config.items() if value is not None]
        for first in range(0, len(parameters), 100):  # the most that it takes at once
            self._client.log_batch(self._id, params=parameters[first : first + 100])
        remember_id(folder, PROGRAM, self._id)

    def start(self, step: int) -> None:
        """Nothing to do: repeated figures are left out."""

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now = round(time.time() * 1000)
        metrics = [Metric(name, value, now, step) for name, value in self._once.new(step, figures).items()]
        if metrics:
            self._client.log_batch(self._id, metrics=metrics)
            self._once.logged(step, figures)

    def close(self, finished: bool) -> None:
        self._client.set_terminated(self._id, "FINISHED" if finished else "KILLED")

    def _go_on(self) -> None:
        self._client.update_run(self._id, status="RUNNING")
        for name in self._client.get_run(self._id).data.metrics:
            last = max(metric.step for metric in self._client.get_metric_history(self._id, name))
            self._once.logged(last, [name])

    def _experiment(self) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
        found = self._client.get_experiment_by_name(name)
        return self._client.create_experiment(name) if found is None else found.experiment_id


def _client(place: str) -> MlflowClient:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow import MlflowClient

    for name in NOISE:
        logging.getLogger(name).setLevel(logging.WARNING)
    return MlflowClient(tracking_uri=_uri(place))


def _uri(place: str) -> str:
    """The tracking URI; a folder means a database in it, because MLflow itself gives up plain folders."""
    if ":" in place:
        return place
    folder = Path(place).expanduser().absolute()
    folder.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{folder}/mlflow.db"
