"""A run that is interrupted, and started again by the same command, against one that was not; more in tests/drills."""

from __future__ import annotations

import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

from cast_ray.data.synthetic import write_dataset
from cast_ray.training.checkpoint import read_history, read_state

STEPS_PER_EPOCH, EPOCHS = 8, 3
TIMES = ("clips_per_s", "data_wait", "seconds_left")
"""What differs between two runs that do the same."""


def outcome(folder: Path) -> tuple[bytes, bytes, list[dict]]:
    """Weights and optimiser of the last checkpoint, byte by byte, and the history without times."""
    assert read_state(folder).position.epoch == EPOCHS
    rows = [{key: value for key, value in row.items() if key not in TIMES} for row in read_history(folder)]
    return (folder / "weights.safetensors").read_bytes(), (folder / "optimizer.safetensors").read_bytes(), rows


def test_a_run_that_was_killed_and_stopped_ends_as_the_undisturbed_one_bit_for_bit(
    faults, start_job: Callable, tmp_path: Path
) -> None:
    """The machine dies in the middle of an epoch, then the driver gets SIGTERM.

    On the way are a clip that cannot be read, and a loss that is not finite on one of the workers.
    """
    clips = write_dataset(tmp_path / "clips", layout="ssv2", train_clips=8 * STEPS_PER_EPOCH, validation_clips=8)
    shutil.copy(Path(__file__).parents[1] / "clips" / "corrupted.mp4", clips.videos / "5.mp4")
    flags = ["--data", str(clips.videos), "--annotations", str(clips.annotations), "--data.max-unreadable", "0.05"]
    flags += ["--batch.global-batch", "8", "--batch.micro-batch", "2", "--optim.epochs", str(EPOCHS)]
    # Every step has its row: a stop between two of them adds one, with the mean of fewer steps.
    flags += ["--optim.on-bad-loss", "skip", "--checkpoint-every", "2", "--log-every", "1"]
    flags += ["--test.temporal-views", "1", "--test.spatial-crops", "1"]
    faults.begin("nan", "0 2")
    undisturbed = start_job(flags, tmp_path / "undisturbed", **faults.environment)
    output = undisturbed.wait()
    assert undisturbed.process.returncode == 0, output
    assert "step 3 of epoch 1: loss not finite on " in output

    faults.begin("pace", 0.1)
    job = start_job(flags, tmp_path / "run", **faults.environment)
    job.wait_until(lambda: job.position() >= (0, 4), "a checkpoint in the middle of an epoch")
    job.kill()
    epoch, within = job.position()
    assert epoch == 0
    assert within > 0

    job = start_job(flags, tmp_path / "run", **faults.environment)
    job.wait_for_steps(1)
    job.process.send_signal(signal.SIGTERM)
    output = job.wait()
    assert job.process.returncode == 128 + signal.SIGTERM, output
    (at,) = re.findall(r"continues after epoch 0 and (\d+) steps", output)
    assert int(at) in (within, within - 2)  # the kill can come between a checkpoint's last byte and Ray's list
    (stopped,) = re.findall(r"was stopped by SIGTERM after step (\d+); .* with --name run", output)
    assert "Traceback" not in output
    epoch, within = job.position()
    assert epoch * STEPS_PER_EPOCH + within == int(stopped)

    faults.end("pace")
    job = start_job(flags, tmp_path / "run", **faults.environment)
    output = job.wait()
    assert job.process.returncode == 0, output
    assert outcome(job.checkpoints()[-1]) == outcome(undisturbed.checkpoints()[-1])
    assert job.checkpoints() == sorted(path for path in job.run.glob("checkpoint_*") if path.is_dir())
