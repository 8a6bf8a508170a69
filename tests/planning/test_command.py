"""`cast-ray plan`: from the command line to tables, JSON and the exit status."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from cast_ray.errors import UserError
from cast_ray.planning.command import main

TINY = ["--recipe", "ssv2", "--model.name", "cast_tiny"]


def _json(capsys, *arguments):
    status = main([*TINY, *arguments, "--json"])
    return status, json.loads(capsys.readouterr().out)


def test_the_tables_say_what_limits_and_where_every_number_is_from(capsys):
    assert main([*TINY, "--cpus-per-node", "40", "--media", "jpeg", "--price-per-gpu-hour", "2"]) == 0
    shown = capsys.readouterr().out
    assert "Limited by: decode cores" in shown
    for origin in ("stated by the vendor", "assumed", "published: Something-Something-V2", "measured here", "counted"):
        assert origin in shown
    assert "at 2 each" in shown


def test_fewer_cores_make_decoding_the_limit(capsys):
    _, many = _json(capsys, "--cpus-per-node", "1000000", "--media", "jpeg")
    _, few = _json(capsys, "--cpus-per-node", "40", "--media", "jpeg")
    assert many["limited_by"] != "decode cores"
    assert few["limited_by"] == "decode cores"
    assert few["seconds"]["run"] > many["seconds"]["run"]


def test_the_cost_is_the_price_of_the_gpu_hours(capsys):
    _, plan = _json(capsys, "--price-per-gpu-hour", "3.5")
    assert plan["cost"] == pytest.approx(3.5 * plan["gpu_hours"])
    assert plan["gpu_hours"] == pytest.approx(16 * plan["seconds"]["run"] / 3600)
    assert _json(capsys)[1]["cost"] is None


def test_settings_of_the_recipe_can_be_changed(capsys):
    _, plan = _json(capsys, "--nodes", "3", "--gpus-per-node=2", "--batch.global_batch", "48", "--batch.micro-batch=8")
    assert plan["nodes"] == 3
    assert plan["steps_per_epoch"] == -(-168_913 // 48)


def test_what_does_not_fit_exits_with_1_and_names_settings_that_fit(capsys):
    # 1600 clips of a tiny model at full frame size do not fit into 24 GB.
    arguments = ["--gpu", "l4", "--model.image-size", "128", "--batch.micro-batch", "1600"]
    status, plan = _json(capsys, *arguments, "--batch.global-batch", "25600")
    assert status == 1
    memory = plan["memory_per_gpu"]
    assert not memory["fits"]
    assert memory["largest_micro_batch"] < 1600
    assert memory["would_fit_with"]
    assert main([*TINY, *arguments, "--batch.global-batch", "25600"]) == 1
    assert f"It fits with {memory['would_fit_with'][0]}" in " ".join(capsys.readouterr().out.split())
    changed = memory["would_fit_with"][0].split()
    again, fitting = _json(capsys, *arguments, "--batch.global-batch", "25600", *changed)
    assert again == 0
    assert fitting["memory_per_gpu"]["fits"]


def test_verbs_and_nouns_and_sound(capsys):
    assert main(["--recipe", "ek100_sound", "--model.name", "ca2st_tiny_clock", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["dataset_bytes"] > (67_217 + 9_668) * 3.1 * 21e3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--recipe", "nothing"], "there is no configuration 'nothing'"),
        ([*TINY, "--nodes", "0"], "--nodes is 0"),
        ([*TINY, "--nodes", "3"], "does not divide"),
        ([*TINY, "--scale.num-workers", "4"], "leave --scale.num-workers away"),
        ([*TINY, "--jpeg-frame-rate", "8"], "goes with --media jpeg only"),
        ([*TINY, "--cpus-per-node", "32"], "none is left to decode"),
        ([*TINY, "--price-per-gpu-hour", "-1"], "--price-per-gpu-hour is -1"),
        ([*TINY, "--gpu", "v100-32"], "use --scale.precision fp16"),
        ([*TINY, "--gpus", "8"], "unknown flag --gpus"),
        (["--recipe", "custom"], "no published numbers belong to 'custom'"),
    ],
)
def test_wrong_input_is_said(arguments, message):
    with pytest.raises(UserError, match=message):
        main(arguments)


def test_neither_ray_nor_deepspeed_is_imported():
    program = (
        "import sys; from cast_ray.planning.command import main; "
        f"main({[*TINY, '--json']}); "
        "print(sorted({'ray', 'deepspeed', 'decord', 'av'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert done.stderr.strip().splitlines()[-1] == "[]"
