"""`cast-ray bench train`: the bare loop is plain torch, parts add up, and all rungs really train."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from rich.console import Console

from cast_ray.bench.apart import run_apart
from cast_ray.bench.plain import PlainAdamW
from cast_ray.bench.train import Train, compared
from cast_ray.bench.train_bare import BareLoop
from cast_ray.bench.train_case import Case, first_micro_batches, make_dataset, plan_of
from cast_ray.bench.train_ladder import RUNGS, LadderJob, climb
from cast_ray.bench.train_show import show_train
from cast_ray.data.shards import open_complete
from cast_ray.errors import UserError
from cast_ray.models.assemble import assemble
from cast_ray.models.costs import input_shapes
from cast_ray.models.named import spec_of
from cast_ray.training.losses import soft_cross_entropy

CASE = Case(
    model="cast_tiny",
    image_size=32,
    frames=8,
    batch=2,
    accumulation=2,
    workers=1,
    threads=1,
    cuda=False,
    precision="float32",
    zero_stage=1,
    epoch_steps=4,
    epochs=2,
    checkpoint_every=8,
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> str:
    return make_dataset(CASE, tmp_path_factory.mktemp("case"))


def _prepared(network_spec, count):
    generator = torch.Generator().manual_seed(1)
    return [
        (
            {name: torch.randn(2, *shape, generator=generator) for name, shape in input_shapes(network_spec).items()},
            {"label": torch.randn(2, 6, generator=generator).softmax(1)},
            torch.ones(2, dtype=torch.bool),
        )
        for _ in range(count)
    ]


def test_the_bare_loop_equals_adamw_written_out():
    config = CASE.config("/nowhere", "test")
    spec = spec_of(config.model)
    networks = []
    for _ in range(2):
        torch.manual_seed(0)
        networks.append(assemble(spec, {"label": 6}))
        networks[-1].freeze(False)
    batches = _prepared(spec, 4)
    loop = BareLoop(
        networks[0],
        batches,
        accumulation=2,
        optim=config.optim,
        rate=1e-2,
        device=torch.device("cpu"),
        dtype=torch.float32,
    )
    loop.run(iter(range(4)))

    from cast_ray.models.groups import parameter_groups

    network, losses = networks[1].train(), []
    groups = parameter_groups(network, weight_decay=config.optim.weight_decay, layer_decay=config.optim.layer_decay)
    optimizers = [
        torch.optim.AdamW(group["params"], lr=1e-2 * group["lr_scale"], weight_decay=group["weight_decay"])
        for group in groups
    ]
    for first in (0, 2):
        both = [soft_cross_entropy(network(x), y, valid) for x, y, valid in batches[first : first + 2]]
        (sum(both) / 2).backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        losses += [loss.item() for loss in both]
    assert loop.mean_loss() == pytest.approx(sum(losses) / 4, rel=1e-6)
    for name, weight in network.named_parameters():
        torch.testing.assert_close(networks[0].get_parameter(name), weight, rtol=1e-5, atol=1e-6)


def test_weights_in_bf16_are_rounded_copies_of_the_updated_ones():
    weight = torch.nn.Parameter(torch.ones(3, dtype=torch.bfloat16))
    optimizer = PlainAdamW([{"params": [weight], "weight_decay": 0.0}], fused=False, lr=1e-4)
    for _ in range(3):
        weight.grad = torch.ones_like(weight)
        optimizer.step()
        assert weight.grad is None
    # Each update alone would be lost in bf16, whose next number below 1 is 1 - 2 ** -8.
    torch.testing.assert_close(optimizer.full[0], torch.full((3,), 1 - 3e-4), rtol=0, atol=1e-6)
    assert torch.equal(weight.detach(), optimizer.full[0].bfloat16())


def test_the_batches_in_memory_are_those_of_the_first_epoch_of_the_plan(dataset):
    config, opened = CASE.config("/nowhere", "test"), open_complete(dataset)
    places = list(plan_of(config, opened).order.micro_batches(0))
    batches = first_micro_batches(config, opened, 0)
    assert len(batches) == len(places) == 8
    for batch, place in zip(batches, places, strict=True):
        assert batch["clip"].tolist() == place.clips.tolist()
        assert batch["frames"].shape == (2, 8, 32, 32, 3)
        assert batch["frames"].any()
        assert batch["valid"].all()


def test_every_rung_trains_and_takes_time(dataset):
    found = run_apart(climb, LadderJob(case=CASE, dataset=dataset, rounds=1), time_limit=300)
    assert tuple(found["rungs"]) == RUNGS
    for turns in found["rungs"].values():
        ((seconds, processor),) = turns
        assert seconds > 0
        assert processor > 0
    assert found["first_loss"] == pytest.approx(1.79, abs=0.5)  # of six classes, untrained: ln 6
    assert found["start_seconds"] > 0


def _ladder(**seconds: float) -> dict:
    """One turn, whose processor time is half of the seconds."""
    usual = {"bare": 1.0, "deepspeed": 1.02, "inputs": 1.03, "loop": 1.05, "logging": 1.09, "checkpoints": 1.25}
    rungs = {name: [(value, value / 2)] for name, value in (usual | seconds).items()}
    return {"rungs": rungs, "first_loss": 1.5, "start_seconds": 3.0}


def _stack(*seconds: float, data_wait: float = 0.1) -> dict:
    intervals = [
        {"steps": 4, "seconds": each, "processor_seconds": 0.6, "data_wait": data_wait / each} for each in seconds
    ]
    return {"intervals": intervals, "first_loss": 1.5, "start_seconds": 20.0}


def test_parts_by_hand_add_up_to_the_whole():
    found = compared(CASE, [_ladder()], [_stack(1.2, 1.6)])
    lost = {part: values["seconds"] for part, values in found["lost"].items()}
    assert lost == pytest.approx(
        {
            "deepspeed": 0.02,
            "inputs": 0.01,
            "loop": 0.02,
            "logging": 0.04 / 4,
            "checkpoints": 0.2 * 3 / 8,  # three updates were timed with one checkpoint; there is one in eight
            "data": 0.1,
            "ray": 1.4 - 1 - 0.02 - 0.01 - 0.02 - 0.01 - 0.075 - 0.1,
        }
    )
    assert found["ratio"]["clips_per_second"] == pytest.approx(1 / 1.4)
    assert found["ratio"]["processor_seconds_per_clip"] == pytest.approx(0.5 / 0.6)
    assert found["bare"]["clips_per_second"] == pytest.approx(4.0)
    assert found["stack"]["processor_seconds_per_clip"] == pytest.approx(0.6 / 4)
    assert found["stack"]["data_wait"] == pytest.approx(0.1 / 1.4)
    assert found["lost"]["data"]["processor_seconds"] == 0
    shares = [values["share"] for values in found["lost"].values()]
    assert sum(shares) == pytest.approx(1 - found["ratio"]["clips_per_second"])


def test_one_disturbed_turn_of_three_does_not_count():
    quiet = compared(CASE, [_ladder()] * 3, [_stack(1.2)] * 3)
    disturbed = compared(CASE, [_ladder(), _ladder(bare=9.0), _ladder()], [_stack(1.2), _stack(7.0), _stack(1.2)])
    assert disturbed == quiet


def test_the_table_has_every_part_and_both_speeds(capsys):
    report = {**vars(Train()), **compared(CASE, [_ladder()], [_stack(1.4)])} | {"batch": 2, "accumulation": 2}
    show_train(copy.deepcopy(report), Console())
    shown = capsys.readouterr().out
    for text in ("DeepSpeed instead of plain torch", "every 25 updates", "+7.1%", "1000.0", "1400.0", "71.4%", "83.3%"):
        assert text in shown
    assert json.loads(json.dumps(report))["lost"].keys() == report["lost"].keys()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"batch": 0}, "--batch is 0"),
        ({"steps": 3}, "--steps is 3"),
        ({"checkpoint_every": 0}, "--checkpoint-every is 0"),
        ({"precision": "bf16", "zero_stage": 0}, "use --zero-stage 1"),
    ],
)
def test_senseless_flags_are_said(flags, message):
    with pytest.raises(UserError, match=message):
        Train(**flags)
