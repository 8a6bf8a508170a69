"""The job for 2 nodes x 8 workers, on one machine: 16 processes with the tiny model, on two simulated nodes.

Not collected with the tests: `make rehearse` runs it, with what it prints. It needs 12 GB of memory and, on two cores,
some twenty minutes.
"""

# ruff: noqa: T201
from __future__ import annotations

import json
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import ray
from ray.util.placement_group import placement_group, placement_group_table, remove_placement_group
from safetensors.numpy import load_file

from cast_ray.data.synthetic import write_dataset
from cast_ray.recipes import RECIPES
from cast_ray.training.checkpoint import read_history, read_state

NODES, PER_NODE, EPOCHS = 2, 8, 3
WORKERS = NODES * PER_NODE
RECIPE = RECIPES["ssv2"]()
STEPS_PER_EPOCH = 2
DECODERS_PER_NODE = 2


@pytest.fixture(scope="module")
def two_nodes(new_cluster: Callable[[], Any]) -> Any:
    """Each with 8 logical GPUs, and with cores for 8 workers and 2 decoders: without GPUs, cores place the workers."""
    cluster = new_cluster()
    for _ in range(NODES):
        cluster.add_node(cpus=int(PER_NODE * RECIPE.scale.cpus_per_worker) + DECODERS_PER_NODE, gpus=PER_NODE)
    return cluster


@pytest.fixture(scope="module")
def flags(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The recipe's own numbers of workers, cores and clips per batch; only the network and the data are small."""
    clips = write_dataset(
        tmp_path_factory.mktemp("ssv2") / "clips",
        layout="ssv2",
        train_clips=STEPS_PER_EPOCH * RECIPE.batch.global_batch,
        validation_clips=32,
    )
    scale, batch = RECIPE.scale, RECIPE.batch
    flags = ["--data", str(clips.videos), "--annotations", str(clips.annotations), "--optim.epochs", str(EPOCHS)]
    flags += ["--scale.cpus-per-worker", str(scale.cpus_per_worker), "--scale.zero-stage", str(scale.zero_stage)]
    flags += ["--batch.global-batch", str(batch.global_batch), "--batch.micro-batch", str(batch.micro_batch)]
    flags += ["--scale.start-timeout-s", str(scale.start_timeout_s), "--scale.hang-timeout-s", "1200"]
    return [*flags, "--test.num-workers", "2", "--log-every", "1", "--checkpoint-every", "1"]


def training_workers(dashboard: str) -> list[dict[str, Any]]:
    """What the dashboard's Train page shows of the workers that were started last."""
    with urllib.request.urlopen(f"http://{dashboard}/api/train/v2/runs/v1", timeout=30) as answer:
        runs = json.load(answer)["train_runs"]
    attempts = [attempt for run in runs for attempt in run["attempts"]]
    return max(attempts, key=lambda attempt: attempt["start_time_ns"])["workers"] if attempts else []


def test_16_bundles_with_a_gpu_each_are_placed_8_and_8(two_nodes: Any) -> None:
    """What Train would ask for with --scale.use-gpu; torch has no GPU here to train on."""
    ray.init(address=two_nodes.address, log_to_driver=False, configure_logging=False)
    try:
        bundle = {"CPU": RECIPE.scale.cpus_per_worker, "GPU": 1.0}
        group = placement_group([bundle] * WORKERS, strategy="PACK")
        ray.get(group.ready(), timeout=120)
        addresses = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes()}
        placed = Counter(addresses[node] for node in placement_group_table(group)["bundles_to_node_id"].values())
        print(f"\n{WORKERS} bundles {bundle}, PACK: {dict(placed)}")
        assert sorted(placed.values()) == [PER_NODE] * NODES
        remove_placement_group(group)
    finally:
        ray.shutdown()


def test_16_workers_train_and_go_on_after_a_kill(
    two_nodes: Any, flags: list[str], start_job: Callable, check_ended: Callable, tmp_path: Path
) -> None:
    """Against two workers with the same global batches: the same losses and weights, but for rounding."""
    flags_of_16 = [*flags, "--scale.num-workers", str(WORKERS)]
    job = start_job(flags_of_16, tmp_path / "rehearsal", two_nodes)
    job.wait_for_steps(1)
    check_placement(training_workers(two_nodes.dashboard), job.processes("RayTrainWorker"))
    job.wait_until(lambda: job.position() >= (1, 1), "a checkpoint within the second epoch")
    processes = job.processes()
    job.kill()
    print(
        f"\n$ python jobs/train_ssv2.py --small {' '.join(flags_of_16)}\n{job.output()}killed by SIGKILL, started again"
    )
    check_ended(processes)
    job = start_job(flags_of_16, tmp_path / "rehearsal", two_nodes)
    output = job.wait()
    print(output)
    assert job.process.returncode == 0, output
    assert "continues after epoch " in output

    few = start_job([*flags, "--scale.num-workers", "2"], tmp_path / "two-workers", two_nodes)
    output = few.wait()
    assert few.process.returncode == 0, output
    compare(job.checkpoints()[-1], few.checkpoints()[-1])


def check_placement(workers: list[dict[str, Any]], processes: dict[psutil.Process, str]) -> None:
    """8 workers on each node, ranked node by node, and no others."""
    assert {worker["pid"] for worker in workers} == {process.pid for process in processes}
    by_rank = sorted(workers, key=lambda worker: worker["world_rank"])
    for worker in by_rank:
        print("rank {world_rank:2d}  node rank {node_rank}  local rank {local_rank}  {node_ip}".format(**worker))
    assert [worker["world_rank"] for worker in by_rank] == list(range(WORKERS))
    places = [(worker["node_rank"], worker["local_rank"]) for worker in by_rank]
    assert places == [(node, local) for node in range(NODES) for local in range(PER_NODE)]
    assert len({(worker["node_rank"], worker["node_ip"]) for worker in by_rank}) == NODES


def compare(folder: Path, expected: Path) -> None:
    for each in (folder, expected):
        assert read_state(each).position.epoch == EPOCHS
    losses, expected_losses = (
        {row["step"]: row["loss"] for row in read_history(each) if row["kind"] == "step"} for each in (folder, expected)
    )
    assert list(losses) == list(expected_losses) == list(range(1, EPOCHS * STEPS_PER_EPOCH + 1))
    accumulation = RECIPE.batch.accumulation(WORKERS)
    print(f"global batch {RECIPE.batch.global_batch} = micro {RECIPE.batch.micro_batch} x {accumulation} x {WORKERS}")
    for step, loss in losses.items():
        print(f"step {step}  loss {loss:.6f} with {WORKERS} workers, {expected_losses[step]:.6f} with 2")
    np.testing.assert_allclose(list(losses.values()), list(expected_losses.values()), rtol=1e-3)
    weights, expected_weights = (load_file(each / "weights.safetensors") for each in (folder, expected))
    difference = max(float(abs(weights[name] - expected_weights[name]).max()) for name in expected_weights)
    print(f"largest difference of a weight: {difference:.1e}")
    assert difference < 2e-4
