"""`cast-ray bench train` on a real Ray cluster: both ways to train do the same, and the report is complete."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

FLAGS = "--image-size 32 --frames 8 --batch 2 --steps 4 --epochs 2 --checkpoint-every 6 --repeats 1 --json"


def test_the_bare_loop_and_the_whole_stack_have_the_same_losses_and_their_speeds_are_compared(cluster_environment):
    program = "import sys; from cast_ray.cli import main; sys.argv = ['cast-ray', *sys.argv[1:]]; main()"
    command = [sys.executable, "-c", program, "bench", "train", *FLAGS.split()]
    done = subprocess.run(command, env=cluster_environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["stack"]["first_loss"] == pytest.approx(report["bare"]["first_loss"], rel=1e-6)
    assert 0 < report["ratio"]["clips_per_second"] < 1.5
    assert 0 < report["ratio"]["processor_seconds_per_clip"] < 1.5
    assert report["stack"]["start_seconds"] > 0
    (turn,) = report["turns"]
    assert sum(interval["steps"] for interval in turn["stack"]["intervals"]) == 8
    lost = sum(part["seconds"] for part in report["lost"].values())
    update = 2 / report["stack"]["clips_per_second"]
    assert lost == pytest.approx(update * (1 - report["ratio"]["clips_per_second"]))
