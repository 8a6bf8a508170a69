"""How a run's figures get to Weights & Biases; a run that goes on is the same one there."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from typing import Any

from cast_ray.data.storage import filesystem, is_local
from cast_ray.watching.identity import known_id, remember_id
from cast_ray.watching.once import Once

__all__ = ["WandbRun", "check_wandb"]

PROGRAM = "wandb"
"""Its library, setting, and name in `cast_ray.watching.identity`."""


def check_wandb() -> None:
    """Raise what W&B raises where nobody is logged in, unless WANDB_MODE says that this is not needed."""
    wandb = _wandb()
    if os.environ.get("WANDB_MODE", "online") == "online" and not wandb.login():
        raise RuntimeError("nobody is logged in; run `wandb login`, or set WANDB_API_KEY or WANDB_MODE=offline")


class WandbRun:
    """One run there. W&B cannot take figures back: of steps that are repeated, the first ones stay.

    Args:
        project: on W&B.
        folder: path or URI of our run. W&B's own files go there if it is local and WANDB_DIR names no other place.
        run: its name.
        config: its settings.

    Raises:
        Exception: the account or the server cannot be used.
    """

    name = "W&B"

    def __init__(self, project: str, *, folder: str, run: str, config: Mapping[str, Any]) -> None:
        wandb = _wandb()
        known = known_id(folder, PROGRAM)
        place = filesystem(folder)[1] if is_local(folder) else None
        self._run = wandb.init(
            project=project,
            id=known or uuid.uuid4().hex,
            name=run,
            resume="allow",
            force=True,  # without an account it is an error, and not a run that is lost in the end
            dir=os.environ.get("WANDB_DIR", place),
            # Its own account of the machine and of what is printed would say again what our figures and logs do.
            settings=wandb.Settings(silent=True, console="off", x_disable_stats=True, disable_git=True),
        )
        self._run.config.update(dict(config), allow_val_change=True)
        self._first = self._run.step if self._run.resumed else 0
        self._once = Once()
        if known is None:
            remember_id(folder, PROGRAM, self._run.id)

    def start(self, step: int) -> None:
        """Nothing to do: repeated figures are left out."""

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        new = self._once.new(step, figures)
        if new and step >= self._first:
            self._run.log(new, step=step)
            self._once.logged(step, new)

    def close(self, finished: bool) -> None:
        self._run.finish(exit_code=0 if finished else 1)


def _wandb() -> Any:
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb

    return wandb
