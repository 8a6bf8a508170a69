"""A run that is interrupted anywhere, and started again by the same command, against one that was not."""

from __future__ import annotations

import random
import re
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from cast_ray.data.synthetic import write_dataset
from cast_ray.training.checkpoint import read_history, read_state

STEPS_PER_EPOCH, EPOCHS = 8, 3
TIMES = ("clips_per_s", "data_wait", "seconds_left")
"""What differs between two runs that do the same."""


def last(folders: list[Path]) -> tuple[bytes, bytes, list[dict]]:
    """Weights and optimiser of the last checkpoint, byte by byte, and the history without times."""
    folder = folders[-1]
    assert read_state(folder).position.epoch == EPOCHS
    rows = [{key: value for key, value in row.items() if key not in TIMES} for row in read_history(folder)]
    return (folder / "weights.safetensors").read_bytes(), (folder / "optimizer.safetensors").read_bytes(), rows


@pytest.fixture(scope="module")
def flags(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Of a job whose data has one training clip that cannot be read."""
    folder = tmp_path_factory.mktemp("ssv2") / "clips"
    clips = write_dataset(folder, layout="ssv2", train_clips=8 * STEPS_PER_EPOCH, validation_clips=8)
    shutil.copy(Path(__file__).parents[1] / "clips" / "corrupted.mp4", clips.videos / "5.mp4")
    flags = ["--data", str(clips.videos), "--annotations", str(clips.annotations), "--data.max-unreadable", "0.05"]
    return [*flags, "--batch.global-batch", "8", "--batch.micro-batch", "2", "--log-every", "3"]


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("storage")


def test_a_run_killed_at_random_steps_ends_as_the_undisturbed_one_bit_for_bit(
    flags: list[str], storage: Path, start_job: Callable
) -> None:
    """The machine dies three times, then one training worker; weights, optimiser and history do not show it."""
    flags = [*flags, "--optim.epochs", str(EPOCHS), "--checkpoint-every", "2"]
    undisturbed = start_job(flags, storage / "undisturbed")
    output = undisturbed.wait()
    assert undisturbed.process.returncode == 0, output

    rng, in_an_epoch = random.Random(5), 0
    for first, final in ((2, 6), (9, 14), (17, 20)):
        job = start_job(flags, storage / "killed")
        wait_for_step(job, rng.randint(first, final))
        time.sleep(rng.uniform(0, 0.4))
        job.lose_the_machine()
        in_an_epoch += job.position()[1] > 0
    assert in_an_epoch >= 2
    job = start_job(flags, storage / "killed")
    wait_for_step(job, 21)
    workers = job.training_workers()
    assert len(workers) == 2
    rng.choice(workers).kill()
    output = job.wait()
    assert job.process.returncode == 0, output
    assert "continues after epoch 2" in output
    assert "going on from the latest checkpoint" in output
    assert last(job.checkpoints()) == last(undisturbed.checkpoints())
    assert job.checkpoints() == sorted(path for path in job.run.glob("checkpoint_*") if path.is_dir())


def wait_for_step(job: object, step: int) -> None:
    """Until a checkpoint is complete after so many updates of the run."""

    def done() -> bool:
        epoch, within = job.position()
        return epoch * STEPS_PER_EPOCH + within >= step

    job.wait_until(done, f"step {step}")


def test_on_sigterm_a_checkpoint_is_written_and_the_run_goes_on_from_it(
    flags: list[str], storage: Path, start_job: Callable
) -> None:
    """First a training worker gets it, as on a machine that is taken away, then the driver, as from `ray job stop`."""
    flags = [*flags, "--optim.epochs", "1000", "--validate-every", "1000", "--checkpoint-every", "None"]
    job = start_job(flags, storage / "stopped")
    job.wait_for("step     3 ")
    assert not job.checkpoints()
    job.training_workers()[0].send_signal(signal.SIGTERM)
    job.wait_for("a worker got SIGTERM")
    (left,) = re.findall(r"all have left after step (\d+), with a checkpoint; going on", job.output())
    job.wait_for(f"step {-(-(int(left) + 1) // 3) * 3:5d} ")
    workers = job.training_workers()
    job.process.send_signal(signal.SIGTERM)
    output = job.wait()
    assert job.process.returncode == 128 + signal.SIGTERM, output
    (stopped,) = re.findall(r"was stopped by SIGTERM after step (\d+); .* with --name stopped", output)
    assert int(stopped) > int(left)
    assert "Traceback" not in output
    epoch, within = job.position()
    assert epoch * STEPS_PER_EPOCH + within == int(stopped)
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert not alive
    job = start_job(flags, storage / "stopped")
    job.wait_for(f"step {-(-(int(stopped) + 1) // 3) * 3:5d} ")
    assert f"continues after epoch {epoch}" in job.output()
