"""Which run a member of a population goes on with, and what it tells of it; without a cluster."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from cast_ray.data.order import Position
from cast_ray.errors import UserError
from cast_ray.labels import LABEL, LabelMap
from cast_ray.recipes.small import small
from cast_ray.recipes.ssv2 import ssv2
from cast_ray.training.checkpoint import CheckpointState, write_checkpoint
from cast_ray.training.folder import latest_position, mend_list
from cast_ray.tuning import member
from cast_ray.tuning.lineage import read_lineage, trial_of
from cast_ray.tuning.member import Member, Reference, read_reference, taken_over
from cast_ray.tuning.trial import Trial, trial_config

VALUES = {"optim.base_lr": 0.5}
OTHERS = {"optim.base_lr": 0.25}


@pytest.fixture
def trial(tmp_path: Path) -> Trial:
    return Trial(base=dataclasses.replace(small(ssv2()), storage=str(tmp_path)), datasets={"": "/s"}, exploit_every=2)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list:
    """What Tune is told: run, epoch, and the reference that Tune keeps as the checkpoint."""
    told: list = []

    def report(metrics, checkpoint=None):
        told.append((metrics["run"], metrics["epoch"], None if checkpoint is None else read_reference(checkpoint)))

    monkeypatch.setattr(member.tune, "report", report)
    return told


def row(epoch):
    return {"kind": "epoch", "epoch": epoch, "step": 4 * epoch, "validation": {"label_top1": epoch / 10}}


def trained(trial, run, values, epochs):
    """Write the checkpoints of a run after each epoch."""
    for epoch in range(1, epochs + 1):
        folder = Path(trial.base.storage) / run / f"checkpoint_{epoch}"
        folder.mkdir(parents=True)
        state = CheckpointState(
            position=Position(epoch=epoch),
            config=trial_config(trial, values, run).to_dict(),
            label_map=LabelMap({LABEL: ("a", "b")}),
            dataset="d",
            frozen="f",
            validation=row(epoch)["validation"],
        )
        tensors = {"weights": {"w": torch.zeros(1)}, "steps": {"steps": torch.zeros(())}}
        write_checkpoint(folder, state, tensors, [row(number) for number in range(1, epoch + 1)])
    mend_list(str(Path(trial.base.storage) / run))


def reference(trial, run, epoch):
    return Reference(trial=trial, run=run, checkpoint=f"checkpoint_{epoch}", epoch=epoch)


def test_a_new_member_has_the_run_of_its_name_and_tells_each_validation_with_a_reference_at_turns(trial, told):
    new = Member(trial, VALUES, "a_0", None)
    assert (new.config.name, new.config.optim.base_lr) == ("a_0", 0.5)
    new.tell_missed()
    assert told == []
    trained(trial, "a_0", VALUES, 4)
    for epoch in (1, 2, 3, 4, 12):
        new.show(row(epoch))
    new.show({"kind": "step"})
    at = {2: reference("a_0", "a_0", 2), 4: reference("a_0", "a_0", 4)}
    assert told == [("a_0", epoch, at.get(epoch)) for epoch in (1, 2, 3, 4, 12)]


def test_a_member_that_goes_on_tells_where_it_waited_and_what_it_has_done_since(trial, told):
    Member(trial, VALUES, "a_0", None)
    trained(trial, "a_0", VALUES, 5)
    again = Member(trial, VALUES, "a_0", reference("a_0", "a_0", 2))
    again.tell_missed()
    at = {2: reference("a_0", "a_0", 2), 4: reference("a_0", "a_0", 4)}
    assert told == [("a_0", epoch, at.get(epoch)) for epoch in (2, 3, 4, 5)]
    assert again.config.name == "a_0"


def test_a_checkpoint_that_is_gone_is_not_referred_to(trial, told):
    trained(trial, "a_0", VALUES, 3)
    for file in (Path(trial.base.storage) / "a_0" / "checkpoint_2").iterdir():
        file.unlink()
    Member(trial, VALUES, "a_0", None).tell_missed()
    assert told == [("a_0", epoch, None) for epoch in (1, 2, 3)]


def test_a_checkpoint_is_waited_for_until_it_is_listed(trial, told, monkeypatch):
    new = Member(trial, VALUES, "a_0", None)
    monkeypatch.setattr(member.time, "sleep", lambda _: trained(trial, "a_0", VALUES, 2))
    new.show(row(2))
    assert told == [("a_0", 2, reference("a_0", "a_0", 2))]


def test_a_member_takes_over_from_another_ones_checkpoint_with_values_of_its_own(trial, told):
    Member(trial, VALUES, "a_0", None)
    trained(trial, "a_0", VALUES, 2)
    heir = Member(trial, OTHERS, "a_1", reference("a_0", "a_0", 2))
    assert heir.config.optim.base_lr == 0.25
    assert trial_of(heir.config.name) == "a_1"
    folder = f"{trial.base.storage}/{heir.config.name}"
    assert latest_position(folder) == Position(epoch=2)
    heir.tell_missed()
    assert told == []
    assert [(stage.after, stage.trial, stage.taken_from, stage.values) for stage in read_lineage(folder)] == [
        (0, "a_0", None, VALUES),
        (2, "a_1", "a_0", OTHERS),
    ]


def test_the_same_takeover_is_the_same_run_and_other_values_are_another_one(trial):
    Member(trial, VALUES, "a_0", None)
    trained(trial, "a_0", VALUES, 2)
    donor = reference("a_0", "a_0", 2)
    first = taken_over(trial, OTHERS, "a_1", donor)
    assert taken_over(trial, OTHERS, "a_1", donor) == first
    assert taken_over(trial, {"optim.base_lr": 0.125}, "a_1", donor).name != first.name
    assert Member(trial, OTHERS, "a_1", reference("a_1", first.name, 4)).config == first


def test_lineages_grow_from_takeover_to_takeover(trial):
    Member(trial, VALUES, "a_0", None)
    trained(trial, "a_0", VALUES, 2)
    heir = taken_over(trial, OTHERS, "a_1", reference("a_0", "a_0", 2))
    last = taken_over(trial, VALUES, "a_0", Reference(trial="a_1", run=heir.name, checkpoint="checkpoint_2", epoch=2))
    lineage = read_lineage(f"{trial.base.storage}/{last.name}")
    assert [(stage.trial, stage.taken_from) for stage in lineage] == [("a_0", None), ("a_1", "a_0"), ("a_0", "a_1")]


def test_a_setting_that_cannot_change_in_the_middle_is_refused_when_all_else_has_failed_to(trial):
    Member(trial, VALUES, "a_0", None)
    trained(trial, "a_0", VALUES, 2)
    with pytest.raises(UserError, match=r"optim\.epochs cannot change"):
        taken_over(trial, {"optim.epochs": 13}, "a_1", reference("a_0", "a_0", 2))
