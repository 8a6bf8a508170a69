"""The `cast-ray` command: which tools it has, and how it answers mistakes."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from cast_ray.cli import main
from cast_ray.evaluation.predictions import Predictions, write_predictions
from cast_ray.labels import LabelMap
from cast_ray.models.listing import FAMILIES
from cast_ray.models.named import NAMED

GOLDEN = Path(__file__).parent / "golden"
COMMANDS = {
    *("analyze", "bench", "config", "ensemble", "export", "inspect", "metrics", "models", "plan", "predict", "report"),
    *("synthesize", "verify", "weights"),
}


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
    listed = {line.split()[0] for line in out.splitlines() if line.startswith("  ")}
    assert listed == COMMANDS
    assert max(map(len, out.splitlines())) <= 120


def test_an_unknown_command_is_answered_with_the_known_ones(call):
    status, out, err = call("train")
    assert (status, out) == (2, "")
    assert err == f"error: unknown command 'train'; use one of {sorted(COMMANDS)}\n"


@pytest.mark.parametrize(
    "command",
    [
        ("verify",),
        ("synthesize",),
        ("models",),
        ("ensemble",),
        ("inspect",),
        ("metrics",),
        ("report",),
        ("export",),
        ("bench", "model"),
        ("config", "diff"),
    ],
    ids=" ".join,
)
def test_every_command_explains_its_flags(call, command):
    status, out, _ = call(*command, "--help")
    assert status == 0
    assert re.search(f"Examples?: cast-ray {' '.join(command)}", " ".join(out.replace("│", " ").split()))


@pytest.mark.parametrize("command", ["bench", "config", "weights"])
def test_commands_with_commands_of_their_own_list_them(call, command):
    for arguments in ((command,), (command, "--help")):
        status, out, _ = call(*arguments)
        assert status == 0
        assert out.startswith(f"usage: cast-ray {command} COMMAND")


def test_models_lists_every_named_model_as_json(call):
    status, out, _ = call("models", "--json", "--classes", "97", "300")
    listed = json.loads(out)
    assert status == 0
    assert listed["num_classes"] == {"verb": 97, "noun": 300}
    assert {model["name"] for model in listed["models"]} == set(NAMED)
    cast = next(model for model in listed["models"] if model["name"] == "cast_base_patch16_224")
    assert cast["trainable_parameters"] == 44_784_781
    assert round(cast["multiply_adds_per_view"] / 1e9, 1) == 390.5
    assert cast["inputs"] == {"video": [3, 16, 224, 224]}
    clock = next(model for model in listed["models"] if model["name"] == "cava_tiny_clock")
    assert list(clock["inputs"]) == ["video", "audio", "has_audio", "video_times", "audio_times"]


def test_models_shows_a_table_of_each_family_that_fits_100_columns_even_into_a_pipe(call):
    status, out, _ = call("models", "*_tiny", "cast_base_patch16_224_independent_no_adapters", "ca2st_base*")
    assert status == 0
    assert max(len(line) for line in out.splitlines() if line.startswith(" ")) <= 100
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line.split() and line.split()[0] in NAMED}
    assert set(rows) >= {"cast_tiny", "msca_kv_tiny", "audio_tiny", "ca2st_base_patch16_224_last3_clock_shared"}
    assert rows["cast_tiny"] == ["0.434", "0.096", "0.029", "8x32"]
    assert rows["cava_tiny"][-2:] == ["8x32", "128x128"]
    titles = [line for line in out.splitlines() if line in set(FAMILIES.values())]
    assert titles == list(dict.fromkeys(FAMILIES.values()))
    assert "classes: 174 (label)" in out


def test_every_named_model_has_a_family():
    assert {name.partition("_")[0] for name in NAMED} <= set(FAMILIES)


def test_ensemble_prints_the_metrics_of_every_run_and_of_all_together(call, tmp_path):
    label_map = LabelMap({"label": ("left", "right")})
    for name, probabilities in (("one", [[0.9, 0.1], [0.6, 0.4]]), ("two", [[0.4, 0.6], [0.1, 0.9]])):
        predictions = Predictions(
            clip_ids=("a", "b"),
            labels=np.array([[0], [1]]),
            probabilities={"label": np.array(probabilities, np.float32)},
            num_views=np.ones(2, np.int32),
            label_map=label_map,
            checkpoint=name,
        )
        write_predictions(tmp_path / name / "predictions.parquet", predictions)
    status, out, _ = call("ensemble", str(tmp_path / "one"), str(tmp_path / "two"))
    assert status == 0
    assert [line.split()[-1] for line in out.splitlines() if "%" in line] == ["50.0%", "50.0%", "100.0%"]


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
        (("models", "cast_bse*"), "no model matches 'cast_bse*'; did you mean cast_"),
        (("models", "--classes", "0"), "--classes is 0"),
        (("ensemble", "one.parquet"), "one.parquet"),
        (("inspect",), "Folder or URI of a prepared dataset"),
        (("inspect", "nowhere"), "there is no complete prepared dataset at 'nowhere'"),
        (("ensemble", "one", "two", "--take", "noun"), "FIELD=NUMBER"),
        (("bench", "date"), "unknown command 'bench date'"),
        (("config", "show"), "unknown command 'config show'"),
        (("config", "diff", "ssv2", "ssv3"), "there is no configuration 'ssv3'; give a recipe (ssv2, k400,"),
        (("bench", "model", "--model", "cast_huge"), "`cast-ray models` lists"),
    ],
)
def test_mistakes_end_with_status_2_and_write_nothing(call, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    status, out, err = call(*arguments)
    assert (status, out.strip()) == (2, "")
    assert message in err
    assert list(tmp_path.iterdir()) == []
