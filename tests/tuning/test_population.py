"""When the members of a population take their turns, and in which spaces they can; without a cluster."""

from __future__ import annotations

import dataclasses
import json
import pickle
from types import SimpleNamespace

import pytest
from ray import tune
from ray.train._internal.checkpoint_manager import _CheckpointManager
from ray.train._internal.session import _TrainingResult
from ray.tune.schedulers import TrialScheduler
from ray.tune.trainable.metadata import _TrainingRunMetadata

from cast_ray.errors import UserError
from cast_ray.recipes.small import small
from cast_ray.recipes.ssv2 import ssv2
from cast_ray.tuning.method import Method
from cast_ray.tuning.population import Population, check_population
from cast_ray.tuning.space import SPACES
from cast_ray.tuning.trial import Trial

SPACE = {"optim.base_lr": tune.loguniform(1e-3, 1e-2), "augment.erase_mode": tune.choice(["pixel", "const"])}
BASE = small(ssv2())
PBT = Method(scheduler="pbt", trials=4)


def test_spaces_of_what_may_change_in_the_middle_of_a_run_are_taken():
    check_population(SPACE, PBT, BASE)
    check_population(SPACES["optimiser"], PBT, BASE)
    check_population(SPACES["augmentation"], PBT, BASE)
    check_population({"optim.base_lr": tune.grid_search([1e-3, 1e-2])}, dataclasses.replace(PBT, trials=1), BASE)


@pytest.mark.parametrize(
    "name", ["model.options.down_ratio", "model.num_frames", "model.name", "optim.epochs", "batch.micro-batch", "seed"]
)
def test_a_field_that_cannot_change_in_the_middle_of_a_run_is_refused_by_name(name):
    with pytest.raises(UserError, match=rf"has {name}, which cannot change .* use --method\.scheduler asha or none"):
        check_population(SPACE | {name: tune.choice([1, 2])}, PBT, BASE)


def test_the_ready_space_of_architectures_is_refused():
    with pytest.raises(UserError, match=r"model\.options\.down_ratio, model\.options\.to_spatial"):
        check_population(SPACES["exchange"], PBT, BASE)


@pytest.mark.parametrize(
    ("space", "method", "message"),
    [
        ({"optim.base_lr": 1e-3}, {}, "varies nothing"),
        ({"optim.base_lr": tune.sample_from(lambda _: 1e-3)}, {}, r"a function for optim\.base_lr"),
        (SPACE, {"trials": 1}, "one trial is no population"),
        (SPACE, {"exploit_every": 12}, r"method\.exploit-every is 12, and a run has 12 epochs"),
        (SPACE, {"exploit_every": 3}, r"method\.exploit-every 3 is no multiple of validate-every 2"),
    ],
)
def test_a_population_that_could_take_no_turn_is_refused(space, method, message):
    base = dataclasses.replace(BASE, validate_every=2)
    with pytest.raises(UserError, match=message):
        check_population(space, dataclasses.replace(PBT, **method), base)


class Controller:
    """As much of Tune's as the scheduler touches."""

    search_alg = None

    def __init__(self, *trials) -> None:
        self._trials = list(trials)

    def get_trials(self):
        return self._trials


class Member:
    """As much of a trial as the scheduler touches."""

    def __init__(self, name, rate, epoch=0) -> None:
        self.trial_id = self.experiment_tag = name
        self.config = {"optim.base_lr": rate, "augment.erase_mode": "pixel"}
        self.evaluated_params = {}
        self.status = "PENDING"
        self.last_result = {"epoch": epoch} if epoch else {}
        self.run_metadata = _TrainingRunMetadata()
        self.run_metadata.checkpoint_manager = _CheckpointManager(tune.CheckpointConfig())
        self.temporary_state = SimpleNamespace(saving_to=None)

    @property
    def checkpoint(self):
        return self.run_metadata.checkpoint_manager._latest_checkpoint_result.checkpoint

    def is_finished(self):
        return self.status in ("TERMINATED", "ERROR")

    def set_experiment_tag(self, tag) -> None:
        self.experiment_tag = tag

    def set_config(self, config) -> None:
        self.config = config


@pytest.fixture
def population(tmp_path):
    """A scheduler whose takeovers are noted, and members that report to it."""
    scheduler = Population(Trial(base=BASE, datasets={"": "/shards"}), SPACE, PBT)
    scheduler.set_search_properties("score", "max")
    taken = []
    scheduler._take_over = lambda values, name, donor: taken.append((name, donor.trial, donor.epoch, dict(values)))

    def report(controller, member, epoch, score, reference=True):
        result = {"epoch": epoch, "score": score}
        decision = scheduler.on_trial_result(controller, member, result)
        member.last_result = result
        if decision == TrialScheduler.PAUSE:
            member.status = "PAUSED"
            if reference:
                folder = tmp_path / f"{member.trial_id}-{epoch}"
                folder.mkdir()
                kept = {"trial": member.trial_id, "run": member.trial_id, "checkpoint": "checkpoint_x", "epoch": epoch}
                (folder / "reference.json").write_text(json.dumps(kept))
                checkpoint = _TrainingResult(tune.Checkpoint(str(folder)), result)
                member.run_metadata.checkpoint_manager._latest_checkpoint_result = checkpoint
        return decision

    return SimpleNamespace(scheduler=scheduler, taken=taken, report=report)


def added(population, *members):
    controller = Controller(*members)
    for member in members:
        population.scheduler.on_trial_add(controller, member)
        member.status = "RUNNING"
    return controller


def test_a_turn_waits_for_all_and_gives_the_worst_the_best_ones_checkpoint_and_other_values(population):
    good, bad = Member("good", 5e-3), Member("bad", 1e-3)
    controller = added(population, good, bad)
    for member in (good, bad):
        assert population.report(controller, member, 1, 0.9) == TrialScheduler.CONTINUE
    assert population.report(controller, good, 2, 0.5) == TrialScheduler.PAUSE
    assert population.scheduler.choose_trial_to_run(controller) is None
    assert population.report(controller, bad, 2, 0.25) == TrialScheduler.PAUSE
    assert population.scheduler.choose_trial_to_run(controller) in (good, bad)
    ((name, donor, epoch, values),) = population.taken
    assert (name, donor, epoch) == ("bad", "good", 2)
    assert bad.config == values != good.config
    assert bad.checkpoint.path == good.checkpoint.path
    assert 1e-3 <= values["optim.base_lr"] <= 1e-2
    assert good.config["optim.base_lr"] == 5e-3
    good.status = bad.status = "RUNNING"
    assert population.report(controller, good, 2, 0.5) == TrialScheduler.CONTINUE  # told again after the turn
    assert population.report(controller, good, 4, 0.5) == TrialScheduler.PAUSE


def test_what_tune_keeps_after_a_turn_has_the_other_ones_checkpoint(population):
    """Ray's own scheduler leaves the old one in what a restored search reads, beside the new values."""
    good, bad = Member("good", 5e-3), Member("bad", 1e-3)
    controller = added(population, good, bad)
    population.report(controller, good, 2, 0.5)
    population.report(controller, bad, 2, 0.25)
    bad.run_metadata.get_json_state()  # as Tune does when a trial is paused
    population.scheduler.choose_trial_to_run(controller)
    kept = _TrainingRunMetadata.from_json_state(bad.run_metadata.get_json_state())
    assert kept.checkpoint_manager.latest_checkpoint_result.checkpoint.path == good.checkpoint.path


def test_there_is_no_turn_at_the_end_of_a_run(population):
    good, bad = Member("good", 5e-3, epoch=10), Member("bad", 1e-3, epoch=10)
    controller = added(population, good, bad)
    assert population.report(controller, good, 12, 0.5) == TrialScheduler.CONTINUE
    assert population.report(controller, bad, 12, 0.25) == TrialScheduler.CONTINUE
    assert population.scheduler.choose_trial_to_run(controller) is None
    assert population.taken == []


def test_a_member_that_fails_is_not_waited_for(population):
    members = [Member(name, 5e-3) for name in "abc"]
    controller = added(population, *members)
    population.report(controller, members[0], 2, 0.5)
    population.report(controller, members[1], 2, 0.25)
    assert population.scheduler.choose_trial_to_run(controller) is None
    members[2].status = "ERROR"
    assert population.scheduler.choose_trial_to_run(controller) is not None
    assert [taken[:2] for taken in population.taken] == [("b", "a")]


def test_after_a_restore_the_next_turn_is_that_of_the_one_that_is_least_far(population):
    waits, behind = Member("waits", 5e-3, epoch=4), Member("behind", 1e-3, epoch=3)
    controller = added(population, waits, behind)
    assert population.report(controller, waits, 4, 0.5) == TrialScheduler.PAUSE  # it tells where it waits
    assert population.scheduler.choose_trial_to_run(controller) is None
    assert population.report(controller, behind, 2, 0.1) == TrialScheduler.CONTINUE
    assert population.report(controller, behind, 4, 0.25) == TrialScheduler.PAUSE
    assert population.scheduler.choose_trial_to_run(controller) is not None
    assert [taken[:3] for taken in population.taken] == [("behind", "waits", 4)]


def test_nobody_goes_back_to_one_that_lags_behind(population):
    far, behind = Member("far", 5e-3, epoch=4), Member("behind", 1e-3, epoch=1)
    controller = added(population, far, behind)
    population.report(controller, far, 4, 0.25)
    population.report(controller, behind, 2, 0.5)
    assert population.scheduler.choose_trial_to_run(controller) is behind
    assert population.taken == []


def test_a_checkpoint_that_could_not_be_written_in_time_is_taken_from_nobody(population):
    good, bad = Member("good", 5e-3), Member("bad", 1e-3)
    controller = added(population, good, bad)
    for epoch, reference in ((2, True), (4, False)):
        good.status = bad.status = "RUNNING"
        population.report(controller, good, epoch, 0.5, reference)
        population.report(controller, bad, epoch, 0.25)
        population.scheduler.choose_trial_to_run(controller)
    assert [taken[2] for taken in population.taken] == [2]


def test_values_do_not_leave_the_space(population):
    scheduler = population.scheduler
    low, high = Member("low", 1e-3), Member("high", 1e-2)
    added(population, low, high)
    for _ in range(100):
        for member in (low, high):
            member.config, _ = scheduler._get_new_config(member, member)
            assert 1e-3 <= member.config["optim.base_lr"] <= 1e-2
            assert member.config["augment.erase_mode"] in ("pixel", "const")


def test_tune_can_pickle_it():
    scheduler = Population(Trial(base=BASE, datasets={"": "/shards"}), SPACE, PBT)
    assert pickle.loads(pickle.dumps(scheduler))._every == 2
