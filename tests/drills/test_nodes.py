"""Machines that go and come while a run trains: fewer workers, then again more, and the same weights in the end."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from ports import free_ports
from ray.cluster_utils import Cluster
from safetensors.torch import load_file

from cast_ray.data.synthetic import write_dataset
from cast_ray.training.checkpoint import read_history, read_state

REPOSITORY = Path(__file__).parents[2]
STEPS_PER_EPOCH, EPOCHS = 24, 2
TIMEOUT_S = 1200
TOLERANCE = 2e-4
"""Largest difference of a weight. Two workers add up gradients in another order than one, in float32, and AdamW
divides what rounding leaves of a vanishing gradient by its own size."""


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A head with room for decoding only, and two nodes with room for one worker each."""
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:  # short: sockets
        cluster = Cluster(
            initialize_head=True,
            head_node_args={
                "num_cpus": 1,
                "object_store_memory": 200 * 2**20,
                "dashboard_port": free_ports(1)[0],  # 8265 may be somebody else's
                "temp_dir": folder,
            },
        )
        try:
            yield cluster
        finally:
            cluster.shutdown()


def add_node(cluster: Cluster, number: int) -> Any:
    return cluster.add_node(num_cpus=2, object_store_memory=200 * 2**20, node_ip_address=f"127.0.0.{number}", wait=True)


@pytest.fixture(scope="module")
def flags(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("ssv2") / "clips"
    clips = write_dataset(folder, layout="ssv2", train_clips=8 * STEPS_PER_EPOCH - 3, validation_clips=8)
    return [
        *("--data", str(clips.videos), "--annotations", str(clips.annotations)),
        *("--batch.global-batch", "8", "--batch.micro-batch", "2", "--data.clips-per-task", "2"),
        *("--optim.epochs", str(EPOCHS), "--checkpoint-every", "2", "--log-every", "1"),
        *("--scale.num-workers", "2", "--scale.min-workers", "1", "--scale.cpus-per-worker", "2"),
        *("--scale.resize-every-s", "5", "--scale.start-timeout-s", "600", "--scale.zero-stage", "1"),
    ]


def start(cluster: Cluster, flags: list[str], run: Path, log: Path) -> subprocess.Popen:
    command = [
        sys.executable,
        "jobs/train_ssv2.py",
        "--small",
        *flags,
        "--storage",
        str(run.parent),
        "--name",
        run.name,
    ]
    environment = os.environ | {"RAY_ADDRESS": cluster.address, "OMP_NUM_THREADS": "1", "RAY_AUTH_MODE": "disabled"}
    with log.open("w") as output:
        return subprocess.Popen(command, env=environment, stdout=output, stderr=output, cwd=REPOSITORY)


def wait(process: subprocess.Popen, log: Path, condition: Callable[[str], bool], what: str) -> float:
    """Wait for something in the job's log; returns the seconds it took."""
    begun = time.monotonic()
    while not condition(log.read_text()):
        assert process.poll() is None, f"ended before {what}:\n{log.read_text()}"
        assert time.monotonic() - begun < TIMEOUT_S, f"{what} did not come:\n{log.read_text()}"
        time.sleep(0.1)
    return time.monotonic() - begun


def finish(process: subprocess.Popen, log: Path) -> str:
    process.wait(timeout=TIMEOUT_S)
    assert process.returncode == 0, log.read_text()
    return log.read_text()


def last_checkpoint(run: Path) -> Path:
    return sorted(path.parent for path in run.glob("checkpoint_*/state.json"))[-1]


def test_a_lost_machine_costs_workers_and_a_new_one_brings_them_back(
    cluster: Cluster, flags: list[str], tmp_path: Path
) -> None:
    """2 workers, then 1, then 2 again, against 2 all along; four micro batches a step, and a last step with padding."""
    add_node(cluster, 2)
    lost = add_node(cluster, 3)
    undisturbed, log = tmp_path / "undisturbed", tmp_path / "undisturbed.log"
    finish(start(cluster, flags, undisturbed, log), log)

    disturbed, log = tmp_path / "disturbed", tmp_path / "disturbed.log"
    process = start(cluster, flags, disturbed, log)
    wait(process, log, lambda text: "step     7 " in text, "the seventh step")
    cluster.remove_node(lost, allow_graceful=False)
    shrunk = wait(process, log, lambda text: "1 of up to 2 workers train" in text, "going on with one worker")
    text = log.read_text()
    steps_before = text.count("  step ")
    again = wait(process, log, lambda text: text.count("  step ") > steps_before, "a step of one worker")
    add_node(cluster, 4)
    grown = wait(process, log, lambda text: text.count("2 of up to 2 workers train") == 2, "two workers again")
    output = finish(process, log)
    print(  # noqa: T201
        f"node lost: {shrunk:.0f} s to one worker, {again:.0f} s more to its first step; added: {grown:.0f} s to two"
    )

    assert "Traceback" not in output
    final = last_checkpoint(disturbed)
    assert read_state(final).position.epoch == EPOCHS
    steps = [row["step"] for row in read_history(final) if row["kind"] == "step"]
    assert steps == list(range(1, EPOCHS * STEPS_PER_EPOCH + 1))
    expected = load_file(last_checkpoint(undisturbed) / "weights.safetensors")
    weights = load_file(final / "weights.safetensors")
    assert weights.keys() == expected.keys()
    difference = max(float((weights[name] - expected[name]).abs().max()) for name in expected)
    print(f"largest difference of a weight: {difference:.1e}")  # noqa: T201
    assert difference < TOLERANCE
    losses = [
        torch.tensor([row["loss"] for row in read_history(last_checkpoint(run)) if row["kind"] == "step"])
        for run in (disturbed, undisturbed)
    ]
    torch.testing.assert_close(*losses, rtol=1e-3, atol=1e-4)
    # Complete checkpoints only, and no worker of the job is left.
    assert {path.parent for path in disturbed.glob("checkpoint_*/state.json")} == set(disturbed.glob("checkpoint_*/"))
    _, alive = psutil.wait_procs(training_workers(), timeout=30)
    assert not alive


def training_workers() -> list[psutil.Process]:
    """Of all nodes: they are children of this process."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "RayTrainWorker" in " ".join(process.cmdline()):
                found.append(process)
    return found
