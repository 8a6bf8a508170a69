"""Who watches a run: the terminal or the log, and the programs that keep its figures."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape

from cast_ray.config import RunConfig
from cast_ray.configuration import flat_settings
from cast_ray.errors import UserError
from cast_ray.watching.identity import known_id
from cast_ray.watching.lines import Lines
from cast_ray.watching.mlflow_run import MlflowRun, check_mlflow
from cast_ray.watching.panel import Panel
from cast_ray.watching.rows import Watcher
from cast_ray.watching.startup import Startup
from cast_ray.watching.tensorboard import TensorBoard
from cast_ray.watching.tracking import Tracked, Tracker
from cast_ray.watching.wandb_run import WandbRun, check_wandb

__all__ = ["check_tracking", "watchers"]


def check_tracking(config: RunConfig) -> None:
    """Raise `UserError` if a program that is to keep the run's figures is not installed, or cannot be reached.

    Of a run that goes on, only the former: a server that is away at night must not keep it from going on.
    """
    wanted = {"mlflow": config.tracking.mlflow, "wandb": config.tracking.wandb}
    for library, place in wanted.items():
        if place is None:
            continue
        if importlib.util.find_spec(library) is None:
            raise UserError(
                f"tracking.{library} is '{place}', but the library is not installed; "
                f"run: pip install 'cast-ray[{library}]', or leave --tracking.{library} away"
            )
        if known_id(config.folder, library) is not None:
            continue
        try:
            check_mlflow(place) if library == "mlflow" else check_wandb()
        except Exception as error:
            raise UserError(
                f"tracking.{library} is '{place}', and that cannot be used: {error}; correct it, or leave "
                f"--tracking.{library} away"
            ) from error


def watchers(config: RunConfig, console: Console, *, folder: str, steps: int, startup: Startup) -> list[Watcher]:
    """All of them, opened; each is to be closed. A program that cannot be opened is left out, with a warning.

    Args:
        config: of the run, with its name.
        console: where progress goes: a terminal gets a panel, everything else lines.
        folder: path or URI of the run.
        steps: updates of the whole run.
        startup: milestones that the driver has passed.
    """
    name, epochs = str(config.name), config.optim.epochs
    settings = config.to_dict()

    def warn(text: str) -> None:
        console.print(f"  [yellow]note[/]  {escape(text)}", highlight=False, soft_wrap=True)

    def opened(tracker: type[MlflowRun] | type[WandbRun], place: str, values: Mapping[str, Any]) -> None:
        try:
            trackers.append(tracker(place, folder=folder, run=name, config=values))
        except Exception as error:
            warn(f"{tracker.name} cannot be reached ({error}); the run goes on without it")

    trackers: list[Tracker] = [TensorBoard(folder, settings)]
    if config.tracking.mlflow is not None:
        opened(MlflowRun, config.tracking.mlflow, dict(flat_settings(settings)))
    if config.tracking.wandb is not None:
        opened(WandbRun, config.tracking.wandb, settings)
    shown: Watcher = (
        Panel(console, name=name, epochs=epochs, steps=steps, startup=startup)
        if console.is_terminal and not console.is_dumb_terminal
        else Lines(console, startup)
    )
    return [shown, *(Tracked(tracker, epochs=epochs, warn=warn) for tracker in trackers)]
