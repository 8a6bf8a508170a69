"""What a person sees of a search while it runs: a line per validation of a trial, and the best one so far."""

from __future__ import annotations

from typing import Any

from ray import tune
from rich.console import Console
from rich.markup import escape

from cast_ray.training.metrics import top1_by_field
from cast_ray.tuning.lineage import trial_of
from cast_ray.tuning.results import EPOCH, RUN, SCORE, VIEWS
from cast_ray.tuning.trial import DATASET

__all__ = ["SearchLog", "values_text"]


class SearchLog(tune.Callback):
    """Prints what trials report; Tune's own tables repeat themselves every few seconds.

    Args:
        console: where to print.
        trials: of the whole search.
        epochs: of a trial that runs to its end.
        fields: settings that differ between trials.
    """

    def __init__(self, console: Console, *, trials: int, epochs: int, fields: tuple[str, ...]) -> None:
        self._console = console
        self._trials = trials
        self._epochs = epochs
        self._fields = fields
        self._numbers: dict[str, int] = {}
        self._told: dict[str, int] = {}
        self._best: dict[str, float] = {}  # by dataset, for scores of different ones cannot be compared

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its callbacks into the search's folder, and a terminal has locks; nothing is read from there."""
        return self.__dict__ | {"_console": None}

    def get_state(self) -> dict[str, Any]:
        """What a search that is restored goes on with."""
        return {"numbers": self._numbers, "told": self._told, "best": self._best}

    def set_state(self, state: dict[str, Any]) -> None:
        self._numbers, self._told, self._best = state["numbers"], state["told"], state["best"]

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        known = trial.trial_id in self._numbers
        number = self._number(trial)
        what = (self._takeover(trial) or "goes on") if known else "starts"
        self._print(f"trial {number}/{self._trials} {what}  {values_text(trial.config, self._fields)}")

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        if EPOCH not in result:
            return
        if result.get(VIEWS):
            figures = ", ".join(f"{field} {value:.2%}" for field, value in top1_by_field(result).items())
            self._print(
                f"  trial {self._number(trial)}/{self._trials}  all test views of the best checkpoint: {figures}"
            )
            return
        if result[EPOCH] <= self._told.get(trial.trial_id, 0):
            return  # a trial that goes on may tell an epoch again
        self._told[trial.trial_id] = result[EPOCH]
        mark, dataset = "", trial.config.get(DATASET, "")
        if result[SCORE] > self._best.get(dataset, float("-inf")):
            self._best[dataset] = result[SCORE]
            mark = "  the best so far" + (f" on {dataset}" if dataset else "")
        self._print(
            f"  trial {self._number(trial)}/{self._trials}  epoch {result[EPOCH]:3d} of {self._epochs}  "
            f"score {result[SCORE]:6.2%}{mark}"
        )

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        done = (trial.last_result or {}).get(EPOCH, 0)
        how = "complete" if done >= self._epochs else f"ended early after epoch {done}"
        self._print(f"  trial {self._number(trial)}/{self._trials}  {how}")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        error = trial.get_error() if hasattr(trial, "get_error") else None
        reason = (str(error).strip().splitlines() or ["unknown"])[-1]
        self._print(f"  trial {self._number(trial)}/{self._trials}  [red]failed[/]: {escape(reason)}; the others go on")

    def _takeover(self, trial: Any) -> str | None:
        """In a population: whose checkpoint a trial goes on from, if not its own."""
        told = trial.latest_checkpoint_result.metrics if trial.latest_checkpoint_result else {}
        donor = trial_of(told[RUN]) if RUN in told else trial.trial_id
        if donor == trial.trial_id:
            return None
        return f"takes over from trial {self._numbers[donor]} after epoch {told[EPOCH]}"

    def _number(self, trial: Any) -> int:
        return self._numbers.setdefault(trial.trial_id, len(self._numbers) + 1)

    def _print(self, text: str) -> None:
        self._console.print(text, highlight=False, soft_wrap=True)


def values_text(values: dict[str, Any], fields: tuple[str, ...]) -> str:
    """Some settings in short form: `optim.base-lr 0.00213  model.drop-path 0.1`."""
    return "  ".join(f"{name.replace('_', '-')} {_short(values[name])}" for name in fields if name in values)


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
