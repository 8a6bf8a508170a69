"""The `cast-ray` command: which tools it has, and how it answers mistakes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from cast_ray.cli import main

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture
def call(monkeypatch, capsys):
    """Run `cast-ray ARGUMENTS`; returns exit status, stdout and stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["cast-ray", *arguments])
        with pytest.raises(SystemExit) as stopped:
            main()
        printed = capsys.readouterr()
        return stopped.value.code, printed.out, printed.err

    return run


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)])
def test_it_says_which_commands_there_are(call, arguments):
    status, out, _ = call(*arguments)
    assert status == 0
    assert "verify FILE..." in out
    assert "synthesize FOLDER" in out


def test_an_unknown_command_is_answered_with_the_known_ones(call):
    status, out, err = call("train")
    assert (status, out) == (2, "")
    assert err == "error: unknown command 'train'; use one of ['synthesize', 'verify']\n"


@pytest.mark.parametrize("command", ["verify", "synthesize"])
def test_every_command_explains_its_flags(call, command):
    status, out, _ = call(command, "--help")
    assert status == 0
    assert f"Example: cast-ray {command}" in " ".join(out.split())


def test_verify_prints_one_json_object_per_file_and_ends_with_status_0_within_tolerance(call):
    files = [str(GOLDEN / "test_views.json")] * 2
    status, out, _ = call("verify", *files)
    results = [json.loads(line) for line in out.splitlines()]
    assert status == 0
    assert len(results) == 2
    assert all(result["within_tolerance"] for result in results)


def test_verify_ends_with_status_1_past_the_tolerance(call, tmp_path):
    views = json.loads((GOLDEN / "test_views.json").read_text())
    views["three_crops"]["240x427"]["offsets"][1] += 1
    (tmp_path / "changed.json").write_text(json.dumps(views))
    status, out, _ = call("verify", str(tmp_path / "changed.json"))
    assert status == 1
    assert json.loads(out)["within_tolerance"] is False


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("verify", "nowhere.json"), "nowhere.json"),
        (("verify", "--fast", "x.json"), "unknown flag --fast"),
        (("synthesize", "clips", "--layout", "k400"), "--layout"),
        (("synthesize",), "Where to write"),
        (("synthesize", "clips", "--train-clip", "8"), "did you mean --train-clips"),
        (("synthesize", "clips", "--train-clips", "0"), "train_clips"),
    ],
)
def test_mistakes_end_with_status_2_and_write_nothing(call, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    status, out, err = call(*arguments)
    assert (status, out.strip()) == (2, "")
    assert message in err
    assert list(tmp_path.iterdir()) == []
