"""Two workers, one of which meets a loss that is not finite: both do the same thing."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from ports import free_ports
from torch import nn

WORLD_SIZE, MICRO_BATCH, ACCUMULATION, STEPS = 2, 3, 2, 3
BAD = (1, 0, 1)
"""Step, accumulation and rank of the micro batch whose loss is not finite."""
CASES = [("float32", 0), ("float32", 1), ("bf16", 2)]


def make_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.GELU(), nn.Linear(16, 4))


def micro_batch(step: int, accumulation: int, rank: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng([step, accumulation, rank])
    inputs = rng.standard_normal((MICRO_BATCH, 6)).astype(np.float32)
    if (step, accumulation, rank) == BAD:
        inputs[1, 2] = np.nan
    return {
        "inputs": inputs,
        "labels": rng.integers(4, size=MICRO_BATCH),
        "step": np.full(MICRO_BATCH, step),
        "accumulation": np.full(MICRO_BATCH, accumulation),
        "clip": np.arange(MICRO_BATCH),
        "clip_id": np.array([f"clip {step}{accumulation}{rank}{i}" for i in range(MICRO_BATCH)]),
        "valid": np.ones(MICRO_BATCH, bool),
        "reason": np.full(MICRO_BATCH, ""),
    }


def batch_loss(logits: torch.Tensor, batch: dict[str, np.ndarray]) -> torch.Tensor:
    return nn.functional.cross_entropy(logits.float(), torch.from_numpy(batch["labels"]))


def expected_weights() -> dict[str, torch.Tensor]:
    """Plain torch, one process; the bad micro batch is not there, but its place in the mean is."""
    network = make_network()
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.01, weight_decay=0.0)
    for step in range(STEPS):
        optimizer.zero_grad()
        for accumulation in range(ACCUMULATION):
            for rank in range(WORLD_SIZE):
                if (step, accumulation, rank) != BAD:
                    batch = micro_batch(step, accumulation, rank)
                    logits = network(torch.from_numpy(batch["inputs"]))
                    (batch_loss(logits, batch) / (ACCUMULATION * WORLD_SIZE)).backward()
        optimizer.step()
    return {name: parameter.detach() for name, parameter in network.named_parameters()}


class Remember:
    """Stands for the board's actor."""

    def __init__(self) -> None:
        self.rows: list[dict] = []
        self.post = SimpleNamespace(remote=self.rows.append)


def make_worker(rank: int, precision: str, stage: int, policy: str) -> SimpleNamespace:
    from cast_ray.data.order import EpochPlan
    from cast_ray.training.history import RunLog
    from cast_ray.training.strategy import DeepSpeedStrategy, deepspeed_config

    network = make_network()
    groups = [{"params": list(network.parameters()), "weight_decay": 0.0, "lr_scale": 1.0}]
    config = deepspeed_config(
        precision=precision,
        zero_stage=stage,
        micro_batch=MICRO_BATCH,
        accumulation=ACCUMULATION,
        clip_grad=0.0,
        trainable=1000,
    )
    board = Remember()
    settings = SimpleNamespace(
        optim=SimpleNamespace(on_bad_loss=policy, epochs=1),
        validate_every=1,
        checkpoint_every=None,
        log_every=1,
        data=SimpleNamespace(max_unreadable=0.0),
    )
    plan = EpochPlan(
        num_clips=MICRO_BATCH * ACCUMULATION * WORLD_SIZE * STEPS,
        seed=0,
        micro_batch=MICRO_BATCH,
        micro_batches_per_step=ACCUMULATION * WORLD_SIZE,
        world_size=WORLD_SIZE,
    )
    return SimpleNamespace(
        rank=rank,
        board=board,
        strategy=DeepSpeedStrategy(network, groups, betas=(0.9, 0.999), config=config),
        log=RunLog(rank, board, []),
        job=SimpleNamespace(config=settings, train_plan=SimpleNamespace(order=plan)),
        listener=None,
        preemption=SimpleNamespace(due=False),
        saving=SimpleNamespace(written=False),
        learning_rates=np.full(STEPS, 0.01),
        watchdog=SimpleNamespace(beat=lambda doing: None, begin=lambda: None),
        inputs=SimpleNamespace(sound=False),
    )


def loss_of(worker: SimpleNamespace, batch: dict[str, np.ndarray], epoch: int, *, blank: bool = False) -> torch.Tensor:
    """As `cast_ray.training.loop._loss`, of another network."""
    inputs = torch.from_numpy(batch["inputs"])
    if blank:
        return worker.strategy.engine(torch.zeros_like(inputs).to(worker.strategy.dtype)).float().sum() * 0.0
    return batch_loss(worker.strategy.engine(inputs.to(worker.strategy.dtype)), batch)


def run_rank(rank: int, port: int, folder: str) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(WORLD_SIZE)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "DS_ACCELERATOR": "cpu"}
    torch.set_num_threads(1)
    from cast_ray.errors import UserError
    from cast_ray.training import loop

    torch.distributed.init_process_group("gloo")
    loop._loss = loss_of
    results = {}
    for policy in ("skip", "stop"):
        for precision, stage in CASES:
            worker = make_worker(rank, precision, stage, policy)
            batches = [micro_batch(step, part, rank) for step in range(STEPS) for part in range(ACCUMULATION)]
            message = ""
            try:
                loop.Epoch(worker, 0).train(iter(batches), 0)
            except UserError as error:
                message = str(error)
            results[f"{policy}-{precision}-{stage}"] = {
                "message": message,
                "weights": worker.strategy.state()["weights"],
                "rows": worker.log.rows,
            }
    torch.save(results, Path(folder) / f"{rank}.pt")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    folder = tmp_path_factory.mktemp("ranks")
    (port,) = free_ports(1)
    mp.spawn(run_rank, args=(port, str(folder)), nprocs=WORLD_SIZE)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(WORLD_SIZE)]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_skipped_micro_batch_adds_nothing_and_the_others_of_the_step_count(ranks: list[dict], case: tuple) -> None:
    found = ranks[0]["skip-{}-{}".format(*case)]
    assert found["message"] == ""
    for name, expected in expected_weights().items():
        tolerance = 1e-6 if case[0] == "float32" else 0.01
        torch.testing.assert_close(found["weights"][name], expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_clips_of_a_skipped_micro_batch_are_in_the_history_and_not_in_the_mean_loss(
    ranks: list[dict], case
) -> None:
    rows = ranks[0]["skip-{}-{}".format(*case)]["rows"]
    (skipped,) = [row for row in rows if row["kind"] == "skipped"]
    assert skipped["clip_ids"] == ["clip 1010", "clip 1011", "clip 1012"]
    assert (skipped["epoch"], skipped["step"], skipped["micro_batches"]) == (0, 1, 1)
    steps = [row for row in rows if row["kind"] == "step"]
    assert len(steps) == STEPS
    assert all(1.0 < row["loss"] < 2.0 and row["unreadable"] == 0 for row in steps)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_all_workers_stop_at_the_same_step_and_say_the_same(ranks: list[dict], case: tuple) -> None:
    results = [rank["stop-{}-{}".format(*case)] for rank in ranks]
    assert results[0]["message"] == results[1]["message"]
    assert (
        "the loss is not finite in epoch 1, step 2, on the clips clip 1010, clip 1011, clip 1012"
        in results[0]["message"]
    )
    assert "--optim.on-bad-loss skip" in results[0]["message"]
    assert all(torch.isfinite(weight).all() for weight in results[0]["weights"].values())
    assert [row["step"] for row in results[0]["rows"] if row["kind"] == "step"] == [1]
