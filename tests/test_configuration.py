"""A run's configuration: written once, found again wherever it is, and compared."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys

import pytest

from cast_ray.config import RunConfig
from cast_ray.configuration import (
    configuration_text,
    differences,
    flat_settings,
    main,
    read_configuration,
    write_configuration,
)
from cast_ray.errors import UserError
from cast_ray.recipes import RECIPES
from cast_ray.recipes.small import small

RUN = dataclasses.replace(RECIPES["ssv2"](), name="first", seed=3)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_found_by_its_name(name):
    assert read_configuration(name) == RECIPES[name]()


@pytest.mark.parametrize("name", RECIPES)
def test_a_printed_configuration_is_the_same_after_reading(name, tmp_path):
    for config in (RECIPES[name](), small(RECIPES[name]())):
        (tmp_path / "settings.json").write_text(configuration_text(config))
        assert read_configuration(str(tmp_path / "settings.json")) == config


def test_a_run_and_its_checkpoints_are_read_from_their_folders(tmp_path, monkeypatch):
    folder = tmp_path / "first"
    write_configuration(RUN, str(folder))
    checkpoint = folder / "checkpoint_1"
    checkpoint.mkdir()
    other = dataclasses.replace(RUN, log_every=99)
    (checkpoint / "state.json").write_text(json.dumps({"format_version": 1, "config": other.to_dict()}))
    assert [path.name for path in folder.iterdir() if path.is_file()] == ["config.json"]
    monkeypatch.chdir(tmp_path)
    for place in ("first", str(folder), f"file://{folder}", "first/config.json", "./first/"):
        assert read_configuration(place) == RUN
    for place in ("first/checkpoint_1", f"file://{checkpoint}", "first/checkpoint_1/state.json"):
        assert read_configuration(place) == other


def test_a_second_start_replaces_the_file_only_while_there_is_no_checkpoint(tmp_path):
    folder = tmp_path / "first"
    write_configuration(RUN, str(folder))
    again = dataclasses.replace(RUN, seed=4)
    write_configuration(again, str(folder))
    assert read_configuration(str(folder)) == again
    (folder / "checkpoint_1").mkdir()
    write_configuration(dataclasses.replace(RUN, seed=5), str(folder))
    assert read_configuration(str(folder)) == again


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "settings.json' is not a configuration: "),
        ("[1]", "settings.json' is not a configuration: it holds '[1]'"),
        (
            '{"optim": {"epoch": 3}}',
            "settings.json': the stored configuration does not fit this version: can not match \"",
        ),
        ('{"optim": {"epochs": 0}}', "settings.json': optim.epochs is 0"),
        (b"\xff\xfe\x00", "settings.json' is not a configuration: "),
    ],
)
def test_a_file_that_is_no_configuration_is_refused_with_its_name(tmp_path, content, message):
    file = tmp_path / "settings.json"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=re.escape(message)):
        read_configuration(str(file))


def test_a_damaged_checkpoint_is_refused_with_its_name(tmp_path):
    (tmp_path / "state.json").write_text("{}")
    with pytest.raises(UserError, match=r"state.json' is not a configuration: 'config'"):
        read_configuration(str(tmp_path))


@pytest.mark.parametrize("place", ["nowhere", "s4://bucket/run", ""])
def test_what_is_not_there_is_answered_in_words(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=re.escape(f"'{place}'")):
        read_configuration(place)


def test_levels_are_joined_by_dots_and_every_field_is_there():
    flat = dict(flat_settings(RUN.to_dict()))
    assert flat["optim.base_lr"] == 1e-3
    assert flat["model.options.merge"] is None
    assert flat["name"] == "first"
    leaves = json.dumps(RUN.to_dict()).count(": ") - sum(
        1
        for group in (RUN, RUN.model)
        for f in dataclasses.fields(group)
        if dataclasses.is_dataclass(getattr(group, f.name))
    )
    assert len(flat) == leaves


def test_only_what_differs_is_named_with_both_values():
    assert differences(RUN, RUN) == []
    assert differences(RUN, RunConfig.from_dict(RUN.to_dict())) == []
    changed = dataclasses.replace(RUN, seed=4, optim=dataclasses.replace(RUN.optim, base_lr=2e-3, drop_epochs=(1, 2)))
    assert differences(RUN, changed) == [
        ("seed", 3, 4),
        ("optim.base-lr", 1e-3, 2e-3),
        ("optim.drop-epochs", [], [1, 2]),
    ]


def test_the_command_shows_what_differs_and_says_by_its_status_whether_there_is_any(tmp_path, capsys):
    folder = tmp_path / "a run of which the folder has a name that is very much longer than a line [of] text"
    write_configuration(dataclasses.replace(RUN, name=None, seed=0), str(folder))
    assert main(["diff", "ssv2", str(folder)]) == 0
    assert capsys.readouterr().out == "no difference\n"
    assert main(["diff", "k400", str(folder)]) == 1
    text = capsys.readouterr().out
    assert str(folder) in text
    assert re.search(r'data.sampling +│ "dense" +│ "uniform"', text)
    assert "optim.base-lr" not in text


@pytest.mark.parametrize("arguments", [["diff"], ["diff", "ssv2"], ["diff", "ssv2", "k400", "ek100"]])
def test_the_command_needs_two_configurations(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "cast-ray config diff" in shown.err


def test_reading_a_recipe_needs_no_ray_and_no_torch():
    code = "import sys; from cast_ray.configuration import read_configuration as r; r('k400'); "
    code += "print([m for m in ('ray', 'torch', 'deepspeed', 'timm') if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
