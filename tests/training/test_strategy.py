"""The DeepSpeed path against plain torch, and its state against itself, on two gloo workers without a compiler."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.multiprocessing as mp
from ports import free_ports
from torch import nn

if TYPE_CHECKING:
    from cast_ray.training.strategy import DeepSpeedStrategy

ADAMW, SGD = None, 0.9
"""The strategy's momentum."""
CASES = [("float32", 0, ADAMW), ("float32", 1, ADAMW), ("bf16", 1, ADAMW), ("bf16", 2, ADAMW)]
CASES += [("float32", 0, SGD), ("float32", 1, SGD), ("bf16", 2, SGD)]
CASES += [("float32", 2, ADAMW), ("float32", 3, ADAMW), ("bf16", 3, ADAMW), ("float32", 3, SGD)]
CASES += [("fp16", 1, ADAMW), ("fp16", 2, ADAMW), ("fp16", 3, ADAMW), ("fp16", 1, SGD)]
CLIPPED = [("float32", 0), ("float32", 1), ("float32", 2), ("float32", 3), ("bf16", 2), ("fp16", 2)]
CLIP = 0.1
"""Below the norms of all gradients here, which is tested."""
STAGES = (0, 1, 2, 3)
WORLD_SIZE, MICRO_BATCH, ACCUMULATION, STEPS, SAVED_AT = 2, 3, 2, 5, 3
DECAY = 0.7
"""Of the moving average of the weights."""


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


def plain_torch_weights(
    momentum: float | None, decay: float = 0.0, *, clip: float = torch.inf, norms: list[float] | None = None
) -> dict[str, torch.Tensor]:
    """The slow reference: one process sees the whole global batch. With a decay, the moving average."""
    network = make_network()
    average = {name: p.detach().clone() for name, p in network.named_parameters() if p.requires_grad}
    if momentum is None:
        optimizer = torch.optim.AdamW(make_groups(network), lr=0.0)
    else:
        optimizer = torch.optim.SGD(make_groups(network), lr=0.0, momentum=momentum)
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = 0.01 * (step + 1) * group["lr_scale"]
        optimizer.zero_grad()
        for accumulation in range(ACCUMULATION):
            for rank in range(WORLD_SIZE):
                inputs, labels = micro_batch(step, accumulation, rank)
                (nn.functional.cross_entropy(network(inputs), labels) / (ACCUMULATION * WORLD_SIZE)).backward()
        norm = nn.utils.clip_grad_norm_([p for p in network.parameters() if p.requires_grad], clip)
        if norms is not None:
            norms.append(norm.item())
        optimizer.step()
        for name, value in average.items():
            value.copy_(decay * value + (1 - decay) * network.get_parameter(name).detach())
    return average


def make_strategy(
    precision: str, stage: int, more: dict[str, Any] | None = None, *, clip: float = 0.0, **settings: Any
) -> DeepSpeedStrategy:
    """Of this rank, with the reference's network and groups; `more` of the configuration of DeepSpeed."""
    from cast_ray.training.strategy import DeepSpeedStrategy, deepspeed_config

    config = deepspeed_config(
        precision=precision,
        zero_stage=stage,
        micro_batch=MICRO_BATCH,
        clip_grad=clip,
        # Several buckets, and weights larger than one.
        **({"accumulation": ACCUMULATION, "trainable": 20} | (more or {})),
    )
    network = make_network()
    return DeepSpeedStrategy(network, make_groups(network), betas=(0.9, 0.999), config=config, **settings)


def train(strategy: DeepSpeedStrategy, rank: int, steps: range) -> list[float | None]:
    """Go on by these updates, like the reference; the norm that each reported."""
    norms = []
    for step in steps:
        for accumulation in range(ACCUMULATION):
            inputs, labels = micro_batch(step, accumulation, rank)
            loss = nn.functional.cross_entropy(strategy.engine(inputs.to(strategy.dtype)).float(), labels)
            strategy.step(loss, 0.01 * (step + 1))
        norms.append(strategy.grad_norm)
    return norms


def run_rank(rank: int, port: int, folder: str) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(WORLD_SIZE)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    os.environ |= {"PATH": folder, "TORCH_EXTENSIONS_DIR": folder}  # neither compiler nor ninja nor a build of earlier
    torch.distributed.init_process_group("gloo")  # as Ray Train does it
    for precision, stage, momentum in CASES:

        def make(precision=precision, stage=stage, momentum=momentum) -> DeepSpeedStrategy:
            return make_strategy(precision, stage, momentum=momentum)

        through = make()
        train(through, rank, range(SAVED_AT))
        saved = through.state()
        train(through, rank, range(SAVED_AT, STEPS))
        resumed = make()
        resumed.load_state(saved)
        train(resumed, rank, range(SAVED_AT, STEPS))
        states = {"through": through.state(), "resumed": resumed.state()}
        if rank == 0:
            torch.save(states, Path(folder) / f"{precision}-{stage}-{momentum}.pt")

    clipped = [clipped_training(rank, precision, stage) for precision, stage in CLIPPED]
    if rank == 0:
        torch.save(clipped, Path(folder) / "clipped.pt")
    average_weights(rank, folder)
    if rank == 0:
        torch.save(overflow(), Path(folder) / "overflow.pt")
    else:
        overflow()
    losses = [real_network_loss(precision, stage) for precision, stage in REAL]
    if rank == 0:
        torch.save(torch.tensor(losses), Path(folder) / "losses.pt")


def clipped_training(rank: int, precision: str, stage: int) -> dict:
    """Weights after some updates with clipping, and the norm that every update reported."""
    strategy = make_strategy(precision, stage, momentum=SGD, clip=CLIP)
    norms = train(strategy, rank, range(STEPS))
    return {"weights": strategy.state()["weights"], "norms": norms}


def average_weights(rank: int, folder: str) -> None:
    """In every ZeRO stage: the average, what the network says with it, and the same after a change of the stage."""

    def strategy_of(stage: int) -> DeepSpeedStrategy:
        # One bucket for all weights, unlike in the cases above.
        more = {"trainable": 1000, "offload_optimizer": stage > 0}
        return make_strategy("float32", stage, more, ema_decay=DECAY, compiler="eager")

    inputs, _ = micro_batch(99, 0, 0)
    for stage in STAGES:
        first = strategy_of(stage)
        train(first, rank, range(SAVED_AT))
        saved = first.state()
        other = strategy_of((stage + 1) % len(STAGES))
        other.load_state(saved)
        restored = other.state()
        train(other, rank, range(SAVED_AT, STEPS))
        with torch.no_grad():
            before = other.engine(inputs)
            with other.averaged():
                inside = other.engine(inputs)
            after = other.engine(inputs)
        result = {"saved": saved, "restored": restored, "final": other.state()}
        if rank == 0:
            outputs = {"before": before, "inside": inside, "after": after}
            torch.save(result | {"outputs": outputs}, Path(folder) / f"average-{stage}.pt")


def overflow() -> list[dict]:
    """States with fp16 before and after an update whose gradient is too large, and as another strategy loads them."""
    more = {"accumulation": 1, "trainable": 1000}
    strategy, other = (make_strategy("fp16", 1, more) for _ in range(2))
    inputs, labels = micro_batch(0, 0, 0)
    states = []
    for factor in (0.01, 1000.0, 1000.0):
        loss = nn.functional.cross_entropy(strategy.engine(inputs.half()).float(), labels)
        strategy.step(loss * factor, 0.01)
        states.append(strategy.state())
    other.load_state(states[-1])
    return [*states, other.state()]


REAL = [("float32", 1), ("bf16", 1), ("float32", 0), ("float32", 3), ("bf16", 3)]


def real_network_loss(precision: str, stage: int) -> float:
    """Loss of a tiny CAST with frozen experts after three updates on one batch."""
    from cast_ray.config import ModelConfig, WeightsConfig
    from cast_ray.labels import LabelMap
    from cast_ray.models.groups import parameter_groups
    from cast_ray.training.build import build_network
    from cast_ray.training.strategy import DeepSpeedStrategy, deepspeed_config

    model = ModelConfig(name="cast_tiny", num_frames=8, image_size=32, drop_path=0.0)
    network, _ = build_network(model, WeightsConfig(), LabelMap({"label": tuple("abcde")}), seed=0)
    groups = parameter_groups(network, weight_decay=0.05, layer_decay=0.75)
    config = deepspeed_config(
        precision=precision, zero_stage=stage, micro_batch=2, accumulation=1, clip_grad=0.0, trainable=1000
    )
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
    (port,) = free_ports(1)
    mp.spawn(run_rank, args=(port, str(folder)), nprocs=WORLD_SIZE)
    return folder


@pytest.fixture(scope="module")
def states(folder: Path) -> dict:
    return {case: torch.load(folder / f"{'-'.join(map(str, case))}.pt", weights_only=True) for case in CASES}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_training_on_two_workers_equals_plain_torch_on_the_whole_batch(states: dict, case: tuple) -> None:
    tolerance = 1e-5 if case[0] == "float32" else 0.03
    reference = plain_torch_weights(case[2])
    weights = states[case]["through"]["weights"]
    assert weights.keys() == reference.keys()
    for name, expected in reference.items():
        torch.testing.assert_close(weights[name], expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("case", CLIPPED, ids=str)
def test_clipping_acts_and_its_norm_is_known_as_in_plain_torch(folder: Path, case: tuple) -> None:
    found = torch.load(folder / "clipped.pt", weights_only=True)[CLIPPED.index(case)]
    norms: list[float] = []
    reference = plain_torch_weights(SGD, clip=CLIP, norms=norms)
    assert min(norms) > CLIP
    assert found["norms"] == pytest.approx(norms, rel=1e-5 if case[0] == "float32" else 0.02)
    for name, expected in reference.items():
        tolerance = 1e-6 if case[0] == "float32" else 1e-3
        torch.testing.assert_close(found["weights"][name], expected, rtol=0, atol=tolerance)
        unclipped = plain_torch_weights(SGD)[name]
        assert (unclipped - expected).abs().max() > 5 * tolerance


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_restored_run_continues_bit_for_bit(states: dict, case: tuple) -> None:
    through, resumed = states[case]["through"], states[case]["resumed"]
    kept = {"exp_avg", "exp_avg_sq"} if case[2] == ADAMW else {"momentum_buffer"}
    assert through.keys() == resumed.keys() == {"weights", "steps"} | kept
    assert through["steps"]["steps"] == STEPS
    assert ("cur_scale" in through["steps"]) == (case[0] == "fp16")
    for kind, tensors in through.items():
        for name, expected in tensors.items():
            assert torch.equal(resumed[kind][name], expected), (kind, name)


def test_cast_with_frozen_experts_trains_alike_in_all_precisions_and_stages(folder: Path) -> None:
    losses = dict(zip(REAL, torch.load(folder / "losses.pt", weights_only=True).tolist(), strict=True))
    assert losses["float32", 0] < 1.5 < torch.tensor(5.0).log()
    for (precision, _), loss in losses.items():
        assert abs(loss - losses["float32", 0]) < (1e-4 if precision == "float32" else 0.05)


def test_an_overflow_in_fp16_changes_nothing_but_the_loss_scale_which_is_restored_too(folder: Path) -> None:
    good, first, second, restored = torch.load(folder / "overflow.pt", weights_only=True)
    for name, weight in good["weights"].items():
        assert torch.equal(first["weights"][name], weight)
    counts = [(state["steps"]["steps"].item(), state["steps"]["updates"].item()) for state in (good, first, second)]
    assert counts == [(1, 1), (2, 1), (3, 1)]
    assert second["steps"]["cur_scale"] < good["steps"]["cur_scale"]
    assert restored["steps"] == second["steps"]


@pytest.fixture(scope="module", params=STAGES)
def average(folder: Path, request: pytest.FixtureRequest) -> dict:
    return torch.load(folder / f"average-{request.param}.pt", weights_only=True)


def test_a_state_gets_unchanged_into_another_zero_stage(average: dict) -> None:
    assert average["saved"].keys() == average["restored"].keys()
    assert average["saved"].keys() == {"weights", "trained", "steps", "exp_avg", "exp_avg_sq"}
    for kind, tensors in average["saved"].items():
        for name, expected in tensors.items():
            assert torch.equal(average["restored"][kind][name], expected), (kind, name)


def test_training_in_two_stages_compiled_equals_plain_torch_and_so_does_its_moving_average(average: dict) -> None:
    for kind, decay in (("trained", 0.0), ("weights", DECAY)):
        for name, expected in plain_torch_weights(ADAMW, decay).items():
            torch.testing.assert_close(average["final"][kind][name], expected, rtol=0, atol=1e-5)


def test_the_network_speaks_with_the_average_inside_the_block_only(average: dict) -> None:
    outputs = average["outputs"]
    assert torch.equal(outputs["before"], outputs["after"])
    network = make_network()
    network.load_state_dict(plain_torch_weights(ADAMW, DECAY), strict=False)
    with torch.no_grad():
        torch.testing.assert_close(outputs["inside"], network(micro_batch(99, 0, 0)[0]), rtol=0, atol=1e-4)
    assert (outputs["inside"] - outputs["before"]).abs().max() > 1e-3
