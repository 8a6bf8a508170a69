"""How a population trains: at every turn its worst trials go on from checkpoints of its best ones, with other settings.

Population based training (Jaderberg et al., arXiv 1711.09846) with Ray Tune's scheduler, in which all trials wait for
each other at a turn, so that few places will do for many trials. Its own way to a turn needs a report of the last
trial, and would wait for ever if that one fails; and it knows nothing of epochs after a restore.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import PopulationBasedTraining, TrialScheduler
from ray.tune.search.sample import Categorical, Domain, Float, Function, Integer, Sampler

from cast_ray.checks import require
from cast_ray.config import RunConfig
from cast_ray.errors import UserError
from cast_ray.training.takeover import MAY_CHANGE
from cast_ray.tuning.member import Reference, read_reference, taken_over
from cast_ray.tuning.method import Method
from cast_ray.tuning.results import EPOCH
from cast_ray.tuning.space import Space, count_trials
from cast_ray.tuning.trial import Trial

__all__ = ["Population", "check_population"]


def check_population(space: Space, method: Method, base: RunConfig) -> None:
    """Raise `UserError` unless a population can train in this space.

    Args:
        space: checked by `check_space`.
        method: with scheduler pbt.
        base: settings that the space does not vary.
    """
    advice = "use --method.scheduler asha or none for it"
    fixed = [name for name in space if name.replace("-", "_") not in MAY_CHANGE]
    require(
        not fixed,
        f"the search space has {', '.join(fixed)}, which cannot change in the middle of a run, as "
        f"--method.scheduler pbt does with what it varies; {advice}. It can vary {', '.join(sorted(MAY_CHANGE))}",
    )
    for name, drawn in space.items():
        known = isinstance(drawn, Categorical | Float | Integer | dict)
        require(
            known or not isinstance(drawn, Domain | Sampler),
            f"the search space has a function for {name}, which --method.scheduler pbt cannot vary; {advice}, or give "
            "tune.uniform, tune.loguniform, tune.randint or tune.choice",
        )
    require(bool(_mutations(space)), f"the search space varies nothing that --method.scheduler pbt could; {advice}")
    epochs, every = base.optim.epochs, method.exploit_every
    require(
        every < epochs,
        f"method.exploit-every is {every}, and a run has {epochs} epochs, so that there would be no turn; lower it, or "
        "raise --optim.epochs",
    )
    require(
        every % base.validate_every == 0,
        f"method.exploit-every {every} is no multiple of validate-every {base.validate_every}, without whose scores "
        "there is no turn; change one of them",
    )
    require(count_trials(space, method.trials) > 1, "one trial is no population; raise --method.trials")


class Population(PopulationBasedTraining):
    """Ray's scheduler, with the turns at multiples of `exploit_every` epochs when all unfinished trials are there.

    Args:
        trial: what all trials have in common.
        space: checked by `check_population`.
        method: with scheduler pbt.
    """

    def __init__(self, trial: Trial, space: Space, method: Method) -> None:
        super().__init__(
            time_attr=EPOCH,
            perturbation_interval=method.exploit_every,
            hyperparam_mutations=_mutations(space),
            quantile_fraction=method.exploit_share,
            resample_probability=method.resample,
            custom_explore_fn=partial(_within, _ranges(space)),
            log_config=False,  # the runs' lineage.json says more
            synch=True,
        )
        self._every, self._epochs = method.exploit_every, trial.base.optim.epochs
        self._take_over: Callable[..., RunConfig] = partial(taken_over, trial)

    def on_trial_add(self, tune_controller: Any, trial: TuneTrial) -> None:
        """In a search that goes on, also find out which turn is next: the scheduler itself is not restored."""
        super().on_trial_add(tune_controller, trial)
        passed = [
            _epoch(member) // self._every * self._every for member in self._trial_state if not member.is_finished()
        ]
        self._next_perturbation_sync = min(passed, default=0) + self._every

    def on_trial_result(self, tune_controller: Any, trial: TuneTrial, result: dict[str, Any]) -> str:
        """Let a trial wait if it has come to a turn; at the end of a run there is none."""
        epoch = result.get(EPOCH, 0)
        if epoch % self._every or not self._next_perturbation_sync <= epoch < self._epochs:
            return TrialScheduler.CONTINUE
        self._save_trial_state(self._trial_state[trial], epoch, result, trial)
        return TrialScheduler.PAUSE

    def choose_trial_to_run(self, tune_controller: Any) -> TuneTrial | None:
        """Take the turn if it is time; then the waiting trial that is least far."""
        members = [trial for trial in tune_controller.get_trials() if not trial.is_finished()]
        if members and all(self._waits(trial) for trial in members):
            self._turn(tune_controller, members)
        return super().choose_trial_to_run(tune_controller)

    def _waits(self, trial: TuneTrial) -> bool:
        state = self._trial_state[trial]
        return trial.status == TuneTrial.PAUSED and state.last_train_time >= self._next_perturbation_sync

    def _turn(self, tune_controller: Any, members: list[TuneTrial]) -> None:
        lower, upper = self._quantiles()
        for trial in [*upper, *lower]:  # the checkpoints of the upper ones must be known
            self._checkpoint_or_exploit(trial, tune_controller, upper, lower)
        for trial in members:
            self._trial_state[trial].last_perturbation_time = self._next_perturbation_sync
        self._next_perturbation_sync += self._every

    def _exploit(self, tune_controller: Any, trial: TuneTrial, trial_to_clone: TuneTrial) -> None:
        """Also copy the other trial's checkpoint now: it may be deleted when that one goes on."""
        state = self._trial_state[trial_to_clone]
        donor: Reference = read_reference(state.last_checkpoint)
        # It could not be written in time; or a trial that had failed, and was started again, lags behind the others.
        if donor.epoch != state.last_train_time or donor.epoch < self._trial_state[trial].last_train_time:
            return
        super()._exploit(tune_controller, trial, trial_to_clone)
        # Else a search that is restored would have the new values and the trial's old checkpoint.
        trial.run_metadata.invalidate_cache()
        with suppress(UserError, OSError):  # the trial tries again, and fails alone
            self._take_over(trial.config, trial.trial_id, donor)


def _epoch(trial: TuneTrial) -> int:
    """Epochs that Tune knows a trial to have done."""
    return int((trial.last_result or {}).get(EPOCH, 0))


def _mutations(space: Space) -> dict[str, Any]:
    """As Ray's scheduler takes them; a list is a choice, of which the values beside each other are neighbours."""
    found: dict[str, Any] = {}
    for name, drawn in space.items():
        if isinstance(drawn, Categorical):
            found[name] = list(drawn.categories)
        elif isinstance(drawn, dict):
            found[name] = list(drawn["grid_search"])
        elif isinstance(drawn, Domain) and not isinstance(drawn, Function):
            found[name] = drawn
    return found


def _ranges(space: Space) -> dict[str, tuple[float, float]]:
    """Lower and upper end of every number in the space."""
    found: dict[str, tuple[float, float]] = {}
    for name, drawn in space.items():
        if isinstance(drawn, Float):
            found[name] = (drawn.lower, drawn.upper)
        elif isinstance(drawn, Integer):
            found[name] = (drawn.lower, drawn.upper - 1)
    return found


def _within(ranges: Mapping[str, tuple[float, float]], values: dict[str, Any]) -> dict[str, Any]:
    """Values that do not leave the space: Ray multiplies them without a look at it."""
    return values | {name: min(max(values[name], low), high) for name, (low, high) in ranges.items()}
