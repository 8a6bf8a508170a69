"""A loss that is not finite on one rank, and a rank that gets no clips: all workers stay together."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from cast_ray.data.synthetic import write_dataset
from cast_ray.training.checkpoint import read_history

MICRO_BATCH = 2


def test_a_loss_that_is_not_finite_on_one_rank(
    train: Callable, faults, drill, check_ended: Callable, ends_well: Callable
) -> None:
    faults.begin("nan", "1 3")
    job = train()
    job.wait_for_steps(1)
    processes = job.processes()
    output = job.wait()
    assert job.process.returncode == 2, output
    assert "Traceback" not in output
    assert "failed" not in output
    (found,) = re.findall(r"not finite in epoch 2, step 4, on the clips ([0-9, ]+);", output)
    clips = found.split(", ")
    # Both micro batches of the step are bad; the first one ends the run.
    assert len(clips) == MICRO_BATCH
    assert job.position() == (1, 2)
    check_ended(processes)

    drill.inject("a loss that is not finite, on one rank; first with --optim.on-bad-loss stop, then again with skip")
    job = train("--optim.on-bad-loss", "skip")
    job.wait_for_steps(1, after=f"step 4 of epoch 2: loss not finite on {', '.join(clips)}")
    drill.recovered()
    ends_well(job)
    rows = [row for row in read_history(job.checkpoints()[-1]) if row["kind"] == "skipped"]
    assert [(row["epoch"], row["step"], row["micro_batches"]) for row in rows] == [(1, 3, 1), (1, 3, 1)]
    assert rows[0]["clip_ids"] == clips
    assert not set(clips) & set(rows[1]["clip_ids"])
    assert job.steps()[-1] == 24
    drill.result = "both workers end before the update and name its clips; with skip, both go on without them"


def test_ranks_without_clips(cluster, start_job: Callable, drill, ends_well: Callable, tmp_path: Path) -> None:
    """One clip to train on: less than a micro batch, and nothing for the second of two workers."""
    clips = write_dataset(tmp_path / "clips", layout="ssv2", train_clips=1, validation_clips=1)
    flags = ["--data", str(clips.videos), "--annotations", str(clips.annotations), "--optim.epochs", "3"]
    flags += ["--batch.global-batch", "4", "--batch.micro-batch", str(MICRO_BATCH), "--log-every", "1"]
    flags += ["--optim.warmup-epochs", "0", "--scale.cpus-per-worker", "1.9"]
    drill.inject("one clip for two workers with micro batches of two")
    weights, losses = [], []
    for workers in (2, 1):
        job = start_job([*flags, "--scale.num-workers", str(workers)], tmp_path / f"run{workers}", cluster)
        job.wait_for_steps(1)
        drill.recovered()
        ends_well(job)
        assert job.steps() == [1, 2, 3]
        folder = job.checkpoints()[-1]
        weights.append(load_file(folder / "weights.safetensors"))
        losses.append([row["loss"] for row in read_history(folder) if row["kind"] == "step"])
    np.testing.assert_allclose(*losses, rtol=1e-5)
    assert min(losses[0]) > 0
    for name in weights[0]:
        np.testing.assert_allclose(weights[0][name], weights[1][name], atol=1e-5, err_msg=name)
    drill.result = "the rank without clips steps along with padding; the same losses and weights as with one worker"
