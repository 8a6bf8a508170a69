"""The DeepSpeed path against plain torch, and its state against itself, on two gloo workers without a compiler."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from torch import nn

CASES = [("float32", 0), ("float32", 1), ("bf16", 1), ("bf16", 2)]
WORLD_SIZE, MICRO_BATCH, ACCUMULATION, STEPS, SAVED_AT = 2, 3, 2, 5, 3


def make_network() -> nn.Module:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 16), nn.GELU(), nn.LayerNorm(16), nn.Linear(16, 4))
    network[0].requires_grad_(False)
    return network


def make_groups(network: nn.Module) -> list[dict]:
    """A decayed and an undecayed group with different learning rates."""
    trainable = [(name, p) for name, p in network.named_parameters() if p.requires_grad]
    matrices = [p for _, p in trainable if p.ndim > 1]
    others = [p for _, p in trainable if p.ndim == 1]
    return [
        {"params": matrices, "weight_decay": 0.05, "lr_scale": 1.0},
        {"params": others, "weight_decay": 0.0, "lr_scale": 0.5},
    ]


def micro_batch(step: int, accumulation: int, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1000 * step + 10 * accumulation + rank)
    return torch.randn(MICRO_BATCH, 6, generator=generator), torch.randint(4, (MICRO_BATCH,), generator=generator)


def plain_torch_weights() -> dict[str, torch.Tensor]:
    """The slow reference: one process sees the whole global batch."""
    network = make_network()
    optimizer = torch.optim.AdamW(make_groups(network), lr=0.0)
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = 0.01 * (step + 1) * group["lr_scale"]
        optimizer.zero_grad()
        for accumulation in range(ACCUMULATION):
            for rank in range(WORLD_SIZE):
                inputs, labels = micro_batch(step, accumulation, rank)
                (nn.functional.cross_entropy(network(inputs), labels) / (ACCUMULATION * WORLD_SIZE)).backward()
        optimizer.step()
    return {name: p.detach() for name, p in network.named_parameters() if p.requires_grad}


def run_rank(rank: int, port: int, folder: str) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(WORLD_SIZE)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    os.environ |= {"PATH": folder, "TORCH_EXTENSIONS_DIR": folder}  # neither compiler nor ninja nor a build of earlier
    from cast_ray.training.strategy import DeepSpeedStrategy, deepspeed_config

    torch.distributed.init_process_group("gloo")  # as Ray Train does it
    for precision, stage in CASES:

        def make_strategy(precision=precision, stage=stage) -> DeepSpeedStrategy:
            network = make_network()
            config = deepspeed_config(
                precision=precision,
                zero_stage=stage,
                micro_batch=MICRO_BATCH,
                accumulation=ACCUMULATION,
                clip_grad=0.0,
            )
            return DeepSpeedStrategy(network, make_groups(network), betas=(0.9, 0.999), config=config)

        def train(strategy: DeepSpeedStrategy, first: int, last: int) -> None:
            for step in range(first, last):
                for accumulation in range(ACCUMULATION):
                    inputs, labels = micro_batch(step, accumulation, rank)
                    loss = nn.functional.cross_entropy(strategy.engine(inputs.to(strategy.dtype)).float(), labels)
                    strategy.step(loss, 0.01 * (step + 1))

        through = make_strategy()
        train(through, 0, SAVED_AT)
        saved = through.state()
        train(through, SAVED_AT, STEPS)
        resumed = make_strategy()
        resumed.load_state(saved)
        train(resumed, SAVED_AT, STEPS)
        states = {"through": through.state(), "resumed": resumed.state()}
        if rank == 0:
            torch.save(states, Path(folder) / f"{precision}-{stage}.pt")

    losses = [real_network_loss(precision) for precision in ("float32", "bf16")]
    if rank == 0:
        torch.save(torch.tensor(losses), Path(folder) / "losses.pt")


def real_network_loss(precision: str) -> float:
    """Loss of a tiny CAST with frozen experts after three updates on one batch."""
    from cast_ray.config import ModelConfig, WeightsConfig
    from cast_ray.labels import LabelMap
    from cast_ray.models.groups import parameter_groups
    from cast_ray.training.build import build_network
    from cast_ray.training.strategy import DeepSpeedStrategy, deepspeed_config

    model = ModelConfig(name="cast_tiny", num_frames=8, image_size=32, drop_path=0.0)
    network, _ = build_network(model, WeightsConfig(), LabelMap({"label": tuple("abcde")}), seed=0)
    groups = parameter_groups(network, weight_decay=0.05, layer_decay=0.75)
    config = deepspeed_config(precision=precision, zero_stage=1, micro_batch=2, accumulation=1, clip_grad=0.0)
    strategy = DeepSpeedStrategy(network, groups, betas=(0.9, 0.999), config=config)
    clips = torch.randn(2, 3, 8, 32, 32, generator=torch.Generator().manual_seed(0))
    for _ in range(4):
        loss = nn.functional.cross_entropy(
            strategy.engine(clips.to(strategy.dtype))["label"].float(), torch.tensor([1, 4])
        )
        strategy.step(loss, 0.01)
    return loss.item()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What rank 0 wrote."""
    folder = tmp_path_factory.mktemp("strategy")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.spawn(run_rank, args=(port, str(folder)), nprocs=WORLD_SIZE)
    return folder


@pytest.fixture(scope="module")
def states(folder: Path) -> dict:
    return {case: torch.load(folder / f"{case[0]}-{case[1]}.pt", weights_only=True) for case in CASES}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_training_on_two_workers_equals_plain_torch_on_the_whole_batch(states: dict, case: tuple) -> None:
    tolerance = 1e-5 if case[0] == "float32" else 0.03
    reference = plain_torch_weights()
    weights = states[case]["through"]["weights"]
    assert weights.keys() == reference.keys()
    for name, expected in reference.items():
        torch.testing.assert_close(weights[name], expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_restored_run_continues_bit_for_bit(states: dict, case: tuple) -> None:
    through, resumed = states[case]["through"], states[case]["resumed"]
    assert through.keys() == resumed.keys() == {"weights", "steps", "exp_avg", "exp_avg_sq"}
    for kind, tensors in through.items():
        for name, expected in tensors.items():
            assert torch.equal(resumed[kind][name], expected), (kind, name)


def test_cast_with_frozen_experts_trains_in_bf16_as_in_float32(folder: Path) -> None:
    in_float32, in_bf16 = torch.load(folder / "losses.pt", weights_only=True).tolist()
    assert in_float32 < 1.5 < torch.tensor(5.0).log()
    assert abs(in_bf16 - in_float32) < 0.05
