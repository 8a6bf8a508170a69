"""Faults that are put into the processes of a training job: a worker that hangs, and a full disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cast_ray.data.synthetic import write_dataset

FAULTS = '''
"""Loaded by every Python process of the job before anything else: puts faults in while files of their names exist."""
import errno, os, sys, threading, time
from pathlib import Path

FOLDER = Path(os.environ["FAULTS"])

def hang_once(loss):
    def slow(worker, batch, *args, **kwargs):
        if worker.rank == 1 and batch["step"][0] == 1 and (FOLDER / "hang").exists():
            (FOLDER / "hang").unlink()
            time.sleep(600)
        return loss(worker, batch, *args, **kwargs)
    return slow

def fill_the_disk(write):
    def full(folder, *args, **kwargs):
        if (FOLDER / "full").exists():
            Path(folder, "weights.safetensors").write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(folder, *args, **kwargs)
    return full

def patch():
    while "cast_ray.training.loop" not in sys.modules or not hasattr(sys.modules["cast_ray.training.loop"], "_mixing"):
        time.sleep(0.05)
    loop, saving = sys.modules["cast_ray.training.loop"], sys.modules["cast_ray.training.saving"]
    loop._loss = hang_once(loop._loss)
    saving.write_checkpoint = fill_the_disk(saving.write_checkpoint)

threading.Thread(target=patch, daemon=True).start()
'''


@pytest.fixture(scope="module")
def flags(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    clips = write_dataset(tmp_path_factory.mktemp("ssv2") / "clips", layout="ssv2", train_clips=32, validation_clips=8)
    flags = ["--data", str(clips.videos), "--annotations", str(clips.annotations), "--optim.epochs", "2"]
    return [*flags, "--batch.global-batch", "8", "--batch.micro-batch", "4", "--log-every", "1"]


@pytest.fixture
def faults(tmp_path: Path) -> dict[str, str]:
    """The environment that puts them in."""
    folder = tmp_path / "faults"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(FAULTS)
    return {"FAULTS": str(folder), "PYTHONPATH": str(folder)}


def test_a_worker_that_hangs_is_replaced_and_a_disk_that_is_full_for_a_while_stops_nothing(
    flags: list[str], faults: dict[str, str], tmp_path: Path, start_job: Callable
) -> None:
    hang, full = Path(faults["FAULTS"], "hang"), Path(faults["FAULTS"], "full")
    hang.touch()
    flags = [*flags, "--checkpoint-every", "1", "--scale.hang-timeout-s", "30"]
    job = start_job(flags, tmp_path / "run", **faults)
    job.wait_for("no sign of life for ")
    full.touch()
    assert not hang.exists()
    job.wait_for("cannot write a checkpoint: [Errno 28] No space left on device; trying again, training goes on")
    full.unlink()
    output = job.wait()
    assert job.process.returncode == 0, output
    assert "going on from the latest checkpoint" in output
    assert job.position() == (2, 0)
    assert job.checkpoints() == sorted(path for path in job.run.glob("checkpoint_*") if path.is_dir())


def test_a_disk_that_stays_full_ends_the_run_in_words_at_once_and_leaves_no_half_checkpoint(
    flags: list[str], faults: dict[str, str], tmp_path: Path, start_job: Callable
) -> None:
    Path(faults["FAULTS"], "full").touch()
    job = start_job([*flags, "--checkpoint-every", "2", "--checkpoint-retry-s", "2"], tmp_path / "run", **faults)
    output = job.wait()
    assert job.process.returncode == 2, output
    assert "no checkpoint could be written" in output
    assert "No space left on device" in output
    assert "Traceback" not in output
    assert "failed" not in output
    assert not [path for path in job.run.glob("checkpoint_*") if path.is_dir()]
