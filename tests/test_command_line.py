"""Command lines: what they become, and how a wrong one is answered."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import tyro

from cast_ray.command_line import parse
from cast_ray.config import RunConfig
from cast_ray.errors import UserError

JOB = Path(__file__).parents[1] / "jobs" / "train_ssv2.py"


@dataclass(frozen=True, kw_only=True)
class Engine:
    """An inner group."""

    power: float = 1.0
    """In kilowatts."""

    def __post_init__(self) -> None:
        if self.power < 0:
            raise UserError(f"engine.power is {self.power}; give 0 or more")


@dataclass(frozen=True, kw_only=True)
class Car:
    """The settings."""

    name: str
    """Of the car."""
    doors: int = 4
    """How many."""
    engine: Engine = field(default_factory=Engine)


def read(*arguments: str, default: Car | None = None) -> Car:
    return parse(Car, default or Car(name="beetle"), description="Build a car.", arguments=arguments)


def test_flags_change_single_fields_of_the_default():
    default = Car(name="beetle", doors=3, engine=Engine(power=30))
    assert read(default=default) == default
    assert read("--engine.power", "55", default=default) == Car(name="beetle", doors=3, engine=Engine(power=55))
    assert read("--doors=5", "--name", "van", default=default) == Car(name="van", doors=5, engine=Engine(power=30))


@pytest.mark.parametrize(
    ("typo", "meant"), [("--dors", "--doors"), ("--engine.pover", "--engine.power"), ("--power", "--engine.power")]
)
def test_an_unknown_flag_is_answered_with_the_nearest_and_all_valid_ones(typo, meant):
    with pytest.raises(UserError) as raised:
        read(typo, "3")
    message = str(raised.value)
    assert message.startswith(f"unknown flag {typo}; did you mean {meant}")
    assert message.split("Valid flags: ")[1].split() == ["--doors", "--engine.power", "--help", "--name"]


def test_a_flag_like_no_other_is_answered_with_the_valid_ones():
    with pytest.raises(UserError, match=r"^unknown flag --zzz\. Valid flags: --doors --engine.power --help --name$"):
        read("--zzz")


def test_what_the_settings_refuse_is_refused():
    with pytest.raises(UserError, match=r"engine.power is -1\.0; give 0 or more"):
        read("--engine.power", "-1")


@pytest.mark.parametrize(
    ("arguments", "named"), [(("--doors", "many"), "--doors"), (("--doors",), "--doors"), ((), "--name")]
)
def test_an_unreadable_or_missing_value_ends_with_status_2_and_names_the_flag(arguments, named, capsys):
    with pytest.raises(SystemExit) as stopped:
        read(*arguments, default=Car(name=tyro.MISSING if named == "--name" else "beetle"))
    printed = capsys.readouterr()
    assert stopped.value.code == 2
    assert printed.out == ""
    assert named in printed.err


def test_help_explains_every_flag_and_ends_with_status_0(capsys):
    with pytest.raises(SystemExit) as stopped:
        read("--help")
    shown = capsys.readouterr().out
    assert stopped.value.code == 0
    for expected in ("Build a car.", "--engine.power", "In kilowatts.", "How many."):
        assert expected in shown


def test_the_flags_of_a_run_are_those_of_its_configuration():
    config = parse(
        RunConfig,
        RunConfig(),
        description="",
        arguments=[
            "--augment.crop-area",
            "0.2",
            "0.9",
            "--augment.rand-augment",
            "None",
            "--model.train-experts",
            "True",
        ],
    )
    assert config.augment.crop_area == (0.2, 0.9)
    assert config.augment.rand_augment is None
    assert config.model.train_experts


@pytest.fixture
def annotated(tmp_path: Path) -> Path:
    """A folder in which one annotated clip has no video."""
    for name in ("videos", "annotations"):
        (tmp_path / name).mkdir()
    (tmp_path / "annotations" / "labels.json").write_text('{"Moving up": "0"}')
    for split in ("train", "validation"):
        (tmp_path / "annotations" / f"{split}.json").write_text('[{"id": "17", "template": "Moving [up]"}]')
    return tmp_path


GOOD = ["--data", "videos", "--annotations", "annotations", "--small"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*GOOD, "--optim.epoch", "3"], "unknown flag --optim.epoch; did you mean --optim.epochs"),
        ([*GOOD, "--optim.epochs", "few"], "--optim.epochs"),
        (
            [*GOOD, "--optim.warmup-epochs", "9", "--optim.epochs", "8"],
            "optim.warmup-epochs 9.0 is more than optim.epochs 8",
        ),
        (
            [*GOOD, "--batch.micro-batch", "24", "--batch.global-batch", "64"],
            "use --batch.global-batch 48 or 96, or another",
        ),
        (GOOD[:4], "--weights.spatial FILE"),
        ([], "--annotations"),
        (["--data", "nowhere", *GOOD[2:]], "the video folder 'nowhere' does not exist"),
        ([*GOOD, "--annotations", "nowhere"], "the annotation folder 'nowhere' does not exist"),
        (GOOD, "names 1 clips of 1 that have no video file"),
    ],
    ids=["typo", "no-number", "contradiction", "batch", "weights", "nothing", "videos", "annotations", "one-video"],
)
def test_the_job_answers_a_mistake_at_once_in_words_and_writes_nothing(annotated, arguments, message):
    before = sorted(annotated.rglob("*"))
    ended = subprocess.run(
        [sys.executable, JOB, *arguments],
        cwd=annotated,
        env=os.environ | {"HOME": str(annotated), "PYTHONPATH": str(JOB.parents[1])},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 2
    assert message in ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""
    assert sorted(annotated.rglob("*")) == before
