"""What a trial does as a member of a population: which run it goes on with, and what it tells of it.

What Tune keeps as the trial's checkpoint is only a `Reference` to that of the run.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import tune

from cast_ray.config import RunConfig
from cast_ray.data.order import Position
from cast_ray.data.storage import joined
from cast_ray.training.checkpoint import fetch_history
from cast_ray.training.folder import latest_checkpoint, listed_checkpoint, mend_list
from cast_ray.training.takeover import take_over
from cast_ray.tuning.lineage import Stage, read_lineage, run_name, write_lineage
from cast_ray.tuning.results import report_of
from cast_ray.tuning.trial import Trial, trial_config
from cast_ray.watching.rows import Row

__all__ = ["Member", "Reference", "read_reference", "taken_over"]

REFERENCE_FILE = "reference.json"
POLL_S = 0.5


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Where a checkpoint of a run lies, and how far it is."""

    trial: str
    run: str
    """Its folder, among those of all runs."""
    checkpoint: str
    """Its folder, in that of the run."""
    epoch: int
    """Epochs done."""


def read_reference(checkpoint: tune.Checkpoint) -> Reference:
    """What Tune keeps as a trial's checkpoint."""
    with checkpoint.filesystem.open_input_stream(f"{checkpoint.path}/{REFERENCE_FILE}") as source:
        return Reference(**json.loads(source.read()))


def taken_over(trial: Trial, values: Mapping[str, Any], name: str, donor: Reference) -> RunConfig:
    """Make a run of a trial that goes on from another trial's checkpoint, unless it is there already.

    Args:
        trial: what all have in common.
        values: the settings that it goes on with.
        name: of the trial.
        donor: the checkpoint.

    Returns:
        The run's configuration; its name tells trial and epoch, and differs for other values.

    Raises:
        UserError: the checkpoint is not there any more, or the storage stays away.
    """
    what = json.dumps([dataclasses.asdict(donor), dict(values)], sort_keys=True, default=str)
    run = run_name(name, donor.epoch, what)
    config = trial_config(trial, values, run)
    before = read_lineage(joined(config.storage, donor.run))
    stage = Stage(after=donor.epoch, trial=name, taken_from=donor.trial, values=dict(values))
    write_lineage(config.folder, (*before, stage))
    take_over(joined(config.storage, donor.run, donor.checkpoint), config)
    return config


class Member:
    """A trial from where Tune (re)starts it.

    Args:
        trial: what all have in common; of a population.
        values: the settings that Tune has chosen.
        name: of the trial.
        reference: Tune's checkpoint of the trial: its own last one, or that of the trial that it is to go on from.

    Raises:
        UserError: the settings do not fit, or the other trial's checkpoint is not there.
    """

    def __init__(self, trial: Trial, values: Mapping[str, Any], name: str, reference: Reference | None) -> None:
        self._name, self._every = name, trial.exploit_every
        if reference is None:
            self.config = trial_config(trial, values, name)
            self._known = 0
            stage = Stage(after=0, trial=name, taken_from=None, values=dict(values))
            write_lineage(self.config.folder, (stage,))
        elif reference.trial == name:
            self.config = trial_config(trial, values, reference.run)
            # Told again: a search that is restored has to learn that the trial waits there for the others.
            self._known = reference.epoch - 1
        else:
            self.config = taken_over(trial, values, name, reference)
            self._known = reference.epoch

    def tell_missed(self) -> None:
        """Report what the run has done and Tune may not know: it goes on for a while after Tune has stopped it."""
        mend_list(self.config.folder)  # as the run will do
        checkpoint = latest_checkpoint(self.config.folder)
        for row in [] if checkpoint is None else fetch_history(checkpoint):
            if row["kind"] == "epoch" and row["epoch"] > self._known:
                self._tell(row, patience_s=0)

    def show(self, row: Row) -> None:
        """Report a validation to Tune, with a checkpoint where the population takes its turn."""
        if row["kind"] == "epoch":
            self._tell(row, patience_s=self.config.checkpoint_retry_s)

    def close(self) -> None:
        """Nothing to do."""

    def _tell(self, row: Row, patience_s: float) -> None:
        report, epoch = report_of(row, run=str(self.config.name)), row["epoch"]
        due = self._every is not None and epoch % self._every == 0 and epoch < self.config.optim.epochs
        checkpoint = self._checkpoint(epoch, patience_s) if due else None
        if checkpoint is None:
            tune.report(report)
            return
        reference = Reference(trial=self._name, run=str(self.config.name), checkpoint=checkpoint, epoch=epoch)
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / REFERENCE_FILE).write_text(json.dumps(dataclasses.asdict(reference)))
            tune.report(report, checkpoint=tune.Checkpoint.from_directory(folder))

    def _checkpoint(self, epoch: int, patience_s: float) -> str | None:
        """The run's checkpoint after an epoch, which is written in the background; None: it did not come in time."""
        deadline = time.monotonic() + patience_s
        while True:
            found = None
            with suppress(OSError):
                found = listed_checkpoint(self.config.folder, Position(epoch=epoch))
            if found is not None or time.monotonic() >= deadline:
                return found
            time.sleep(POLL_S)
