"""The storage of a run fails for a while, or a disk is full: training goes on, or ends in words; nothing half stays."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from threading import Timer

import pyarrow.fs as pafs

from cast_ray.data.storage import filesystem

AWAY_S = 20.0
TRYING_AGAIN = "trying again, training goes on"
GOING_ON = "going on from the latest checkpoint"


def test_storage_that_is_away_for_a_while(
    train: Callable, faults, drill, ends_well: Callable, outcome, undisturbed, s3_server, s3_bucket: str, tmp_path: Path
) -> None:
    """Clips and checkpoints are on it."""
    faults.begin("pace", 0.2)
    job = train(run=f"{s3_bucket}/runs/run", **s3_server.environment)
    job.wait_for_steps(3)
    s3_server.stop()
    Timer(AWAY_S, s3_server.start).start()
    drill.inject(f"the S3 server that has clips and checkpoints is away for {AWAY_S:.0f} s; counted from its loss")
    # Whichever comes first to the storage: a checkpoint of ours, or Ray Train's list of them.
    tells = re.compile(r"cannot write a checkpoint: .*; trying again|train: Ray Train's controller failed: ")
    job.wait_until(lambda: tells.search(job.output()), "what happened")
    time.sleep(AWAY_S)
    seen = len(job.steps())
    job.wait_for_steps(seen + 1)
    drill.recovered()
    assert "Traceback" not in ends_well(job)
    storage, path = filesystem(f"{s3_bucket}/runs/run")
    pafs.copy_files(path, str(tmp_path / "run"), source_filesystem=storage)
    assert outcome(tmp_path / "run") == undisturbed
    drill.result = "the checkpoint is tried again, training waits or starts anew; bit for bit the undisturbed run"


def test_a_disk_that_is_full_for_a_while(train: Callable, faults, drill, ends_undisturbed: Callable) -> None:
    faults.begin("pace", 0.1)
    faults.begin("full")
    job = train()
    job.wait_for(f"cannot write a checkpoint: [Errno 28] No space left on device; {TRYING_AGAIN}")
    assert not job.checkpoints()
    faults.end("full")
    drill.inject("the disk is full while a checkpoint is written, and has space again")
    job.wait_until(job.checkpoints, "a checkpoint")
    drill.recovered()
    assert GOING_ON not in ends_undisturbed(job)
    drill.result = "the checkpoint is tried again while training goes on; bit for bit the undisturbed run"


def test_a_disk_that_stays_full(
    train: Callable, faults, drill, check_ended: Callable, ends_undisturbed: Callable
) -> None:
    faults.begin("pace", 0.1)
    impatient = ("--checkpoint-retry-s", "5")
    job = train(*impatient)
    job.wait_until(lambda: job.position() >= (0, 4), "two checkpoints")
    faults.begin("full")
    drill.inject("the disk stays full; --checkpoint-retry-s 5")
    processes = job.processes()
    output = job.wait()
    drill.recovered()
    assert job.process.returncode == 2, output
    assert "no checkpoint could be written" in output
    assert "No space left on device" in output
    assert "Traceback" not in output
    assert job.checkpoints() == sorted(path for path in job.run.glob("checkpoint_*") if path.is_dir())
    check_ended(processes)
    faults.end("full")
    job = train(*impatient)
    job.wait_for_steps(1)
    ends_undisturbed(job)
    drill.result = "the run ends, says so and keeps its complete checkpoints; bit for bit, if it is started again"


def test_a_list_of_checkpoints_that_ray_cannot_write(
    train: Callable, faults, drill, ends_undisturbed: Callable
) -> None:
    """The storage fails just when a complete checkpoint becomes known."""
    faults.begin("pace", 0.1)
    job = train()
    job.wait_until(lambda: job.position() >= (0, 4), "two checkpoints")
    faults.begin("list")
    drill.inject("the storage fails when Ray Train writes its list of checkpoints")
    job.wait_for_steps(1, after=GOING_ON)
    drill.recovered()
    output = ends_undisturbed(job)
    assert "train: Ray Train's controller failed: [Errno 5] the storage is away" in output
    assert "Traceback" not in output
    drill.result = "all workers start anew from the latest checkpoint; bit for bit the undisturbed run"
