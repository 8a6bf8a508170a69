"""A run that goes on with another number of workers, and the authors' fine-tuning losses through DeepSpeed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from ports import free_ports
from torch import nn

from cast_ray.data.order import EpochPlan
from cast_ray.models.groups import parameter_groups
from cast_ray.training.schedule import learning_rates

GOLDEN = Path(__file__).parents[1] / "golden" / "cast_tiny_verb_noun.json"
STAGES = (0, 1, 2, 3)
MICRO_BATCH, MICRO_BATCHES, STEPS, CHANGED_AT = 3, 4, 5, 3
"""Micro batches per global batch, which the workers divide among themselves."""


def make_network() -> nn.Module:
    """With sizes that three and four workers do not divide."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.GELU(), nn.LayerNorm(7), nn.Linear(7, 3))


def micro_batch(step: int, place: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(100 * step + place)
    return torch.randn(MICRO_BATCH, 5, generator=generator), torch.randint(3, (MICRO_BATCH,), generator=generator)


def plain_torch_weights() -> dict[str, torch.Tensor]:
    network = make_network()
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.01, weight_decay=0.05)
    for step in range(STEPS):
        optimizer.zero_grad()
        for place in range(MICRO_BATCHES):
            inputs, labels = micro_batch(step, place)
            (nn.functional.cross_entropy(network(inputs), labels) / MICRO_BATCHES).backward()
        optimizer.step()
    return {name: parameter.detach() for name, parameter in network.named_parameters()}


def begin(rank: int, world_size: int, port: int) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world_size)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "DS_ACCELERATOR": "cpu"}
    torch.set_num_threads(1)
    dist.init_process_group("gloo")


def train_part(rank: int, world_size: int, port: int, folder: str, steps: range) -> None:
    """In every ZeRO stage: go on from the state in the folder, if there is one, and leave a new one.

    Three workers do not divide four micro batches: two of them get one of padding, whose loss is 0.
    """
    begin(rank, world_size, port)
    from cast_ray.training.strategy import DeepSpeedStrategy, deepspeed_config

    plan = EpochPlan(num_clips=1, seed=0, micro_batch=1, micro_batches_per_step=MICRO_BATCHES, world_size=world_size)
    for stage in STAGES:
        network = make_network()
        config = deepspeed_config(
            precision="float32",
            zero_stage=stage,
            micro_batch=MICRO_BATCH,
            accumulation=plan.accumulation,
            clip_grad=0.0,
            trainable=1000,
        )
        groups = [{"params": list(network.parameters()), "weight_decay": 0.05, "lr_scale": 1.0}]
        strategy = DeepSpeedStrategy(network, groups, betas=(0.9, 0.999), config=config)
        before = Path(folder) / f"{stage}-{steps.start}.pt"
        if before.exists():
            strategy.load_state(torch.load(before, weights_only=True))
        for step in steps:
            for part in range(plan.accumulation):
                place = part * world_size + rank
                inputs, labels = micro_batch(step, place)
                loss = nn.functional.cross_entropy(strategy.engine(inputs), labels)
                strategy.step(loss * plan.loss_weight * (place < MICRO_BATCHES), 0.01)
        state = strategy.state(keep=rank == 0)
        if rank == 0:
            torch.save(state, Path(folder) / f"{stage}-{steps.stop}-of-{world_size}.pt")


def golden_losses(rank: int, world_size: int, port: int, folder: str) -> None:
    """The fine-tuning run of the golden file, one clip of its batch per worker."""
    begin(rank, world_size, port)
    from cast_ray import verify
    from cast_ray.training.strategy import DeepSpeedStrategy, deepspeed_config

    golden = json.loads(GOLDEN.read_text())
    run = golden["finetune"]
    clip = verify._clip(golden, GOLDEN)[rank : rank + 1]
    labels = {field: torch.tensor(values[rank : rank + 1]) for field, values in golden["labels"].items()}
    rates = learning_rates(
        steps=run["epochs"] * run["steps_per_epoch"],
        warmup_steps=run["warmup_epochs"] * run["steps_per_epoch"],
        peak=run["peak_lr"],
        final=run["min_lr"],
    )
    for stage in STAGES:
        network = verify._build(golden, GOLDEN)
        config = deepspeed_config(
            precision="float32", zero_stage=stage, micro_batch=1, accumulation=1, clip_grad=0.0, trainable=1000
        )
        groups = parameter_groups(network, verify._weight_decay(run), run["layer_decay"])
        strategy = DeepSpeedStrategy(network, groups, betas=(0.9, 0.999), config=config)
        losses = []
        for rate in rates:
            loss = verify._loss(strategy.engine, clip, labels)
            strategy.step(loss, float(rate))
            mean = loss.detach() / world_size
            dist.all_reduce(mean)
            losses.append(mean)
        if rank == 0:
            torch.save(torch.stack(losses), Path(folder) / f"losses-{stage}.pt")


def spawn(function: Callable, world_size: int, *arguments: object) -> None:
    mp.spawn(function, args=(world_size, *free_ports(1), *arguments), nprocs=world_size)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """States of two workers in the middle, and of one, three and four workers at the end."""
    folder = tmp_path_factory.mktemp("worlds")
    spawn(train_part, 2, str(folder), range(CHANGED_AT))
    for stage in STAGES:
        (folder / f"{stage}-{CHANGED_AT}-of-2.pt").rename(folder / f"{stage}-{CHANGED_AT}.pt")
    for world_size in (1, 3, 4):
        spawn(train_part, world_size, str(folder), range(CHANGED_AT, STEPS))
    return folder


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("world_size", [1, 3, 4])
def test_a_run_of_two_workers_goes_on_with_one_three_or_four_as_if_nothing_had_happened(
    folder: Path, stage: int, world_size: int
) -> None:
    state = torch.load(folder / f"{stage}-{STEPS}-of-{world_size}.pt", weights_only=True)
    assert state["steps"] == {"steps": torch.tensor(float(STEPS)), "updates": torch.tensor(float(STEPS))}
    for name, expected in plain_torch_weights().items():
        torch.testing.assert_close(state["weights"][name], expected, rtol=0, atol=1e-5)


def test_the_authors_fine_tuning_losses_come_out_of_every_zero_stage_on_two_workers(tmp_path: Path) -> None:
    from cast_ray.verify import TOLERANCES

    spawn(golden_losses, 2, str(tmp_path))
    expected = torch.tensor(json.loads(GOLDEN.read_text())["finetune"]["losses"])
    for stage in STAGES:
        losses = torch.load(tmp_path / f"losses-{stage}.pt", weights_only=True)
        torch.testing.assert_close(losses, expected, rtol=TOLERANCES["finetune_losses"], atol=0)
