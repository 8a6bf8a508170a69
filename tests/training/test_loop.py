"""What is due after an update, without a cluster: rows, checkpoints, and leaving."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import ray.train
import torch
from torch import nn

from cast_ray.data.order import EpochPlan, Position
from cast_ray.training import history, loop
from cast_ray.training.agreement import Notice
from cast_ray.training.history import RunLog
from cast_ray.training.stopping import Preemption


class Saving:
    """Notes what was saved."""

    def __init__(self) -> None:
        self.positions: list[Position] = []
        self.settled = False
        self.written = False

    def settle(self) -> None:
        self.settled = True


@pytest.fixture
def saving(monkeypatch: pytest.MonkeyPatch) -> Saving:
    saving = Saving()
    monkeypatch.setattr(loop, "_save", lambda worker, position: saving.positions.append(position))
    monkeypatch.setattr(history, "gather", lambda value: [value])
    return saving


def epoch_of(saving: Saving, epoch: int = 0, **settings) -> loop.Epoch:
    """Epoch of five steps; two of them are in the run, and only the second one is validated."""
    optim = SimpleNamespace(on_bad_loss="stop", epochs=2)
    values = {"optim": optim, "validate_every": 2, "checkpoint_every": None, "log_every": 100} | settings
    config = SimpleNamespace(data=SimpleNamespace(max_unreadable=0.5), **values)
    plan = EpochPlan(num_clips=10, seed=0, micro_batch=2, micro_batches_per_step=1, world_size=1)
    board = SimpleNamespace(post=SimpleNamespace(remote=lambda row: None))
    worker = SimpleNamespace(
        rank=0,
        job=SimpleNamespace(config=config, train_plan=SimpleNamespace(order=plan)),
        strategy=SimpleNamespace(device=torch.device("cpu"), grad_norm=None),
        log=RunLog(0, board, []),
        saving=saving,
        inputs=SimpleNamespace(sound=False),
        learning_rates=np.ones(10),
        listener=None,
        preemption=Preemption(),
    )
    return loop.Epoch(worker, epoch)


def after(epoch: loop.Epoch, step: int, **news: bool) -> None:
    epoch._news = Notice(**news)
    epoch._after_step(step, epoch._epoch * 5 + step + 1)


def rows(epoch: loop.Epoch) -> list[int]:
    return [row["step"] for row in epoch._worker.log.rows]


def test_a_checkpoint_comes_every_so_many_updates_of_the_run_each_with_a_row(saving):
    epochs = [epoch_of(saving, number, checkpoint_every=3) for number in (0, 1)]
    for epoch in epochs:
        for step in range(5):
            after(epoch, step)
    assert saving.positions == [Position(epoch=0, step=3), Position(epoch=1, step=1), Position(epoch=1, step=4)]
    assert [rows(epoch) for epoch in epochs] == [[3, 5], [6, 9, 10]]


def test_there_is_none_at_the_end_of_an_epoch_when_validation_follows(saving):
    for epoch in (epoch_of(saving, 0, checkpoint_every=5), epoch_of(saving, 1, checkpoint_every=5)):
        after(epoch, 4)
    assert saving.positions == [Position(epoch=0, step=5)]


def test_a_stop_saves_even_where_validation_would_follow_and_leaves_the_loop(saving):
    epoch = epoch_of(saving, 1)
    with pytest.raises(loop._Stopped):
        after(epoch, 4, stop=True)
    assert saving.positions == [Position(epoch=1, step=5)]
    assert rows(epoch) == [10]


def test_a_worker_that_is_to_end_takes_all_along_once_the_checkpoint_is_known(saving):
    with pytest.raises(RuntimeError, match="all have left after step 2, with a checkpoint"):
        after(epoch_of(saving), 1, leave=True)
    assert saving.positions == [Position(epoch=0, step=2)]
    assert saving.settled


def test_a_machine_that_ray_takes_away_causes_one_checkpoint_and_training_goes_on(saving, monkeypatch):
    info = [None, SimpleNamespace(preempted_ranks=[3]), SimpleNamespace(preempted_ranks=[3])]
    monkeypatch.setattr(ray.train, "get_preemption_info", lambda: info.pop(0))
    epoch = epoch_of(saving)
    after(epoch, 0)
    assert len(info) == 3, "asking is a collective, only for when all have agreed to look"
    for step in (1, 2, 3):
        after(epoch, step, look=True)
    assert saving.positions == [Position(epoch=0, step=3)]


def worker_of(rank: int, world_size: int) -> tuple[SimpleNamespace, nn.Module]:
    """One of the workers of a step of six micro batches, with a network that draws random numbers."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 3))
    augment = SimpleNamespace(mixup_probability=1.0, mixup_alpha=0.8, cutmix_alpha=0.0, cutmix_switch=0.0)
    config = SimpleNamespace(
        seed=3, augment=augment, audio=SimpleNamespace(mixing="none"), optim=SimpleNamespace(label_smoothing=0.1)
    )
    plan = EpochPlan(num_clips=12, seed=0, micro_batch=2, micro_batches_per_step=6, world_size=world_size)
    pixels = torch.arange(8.0).reshape(2, 4)
    worker = SimpleNamespace(
        rank=rank,
        augment=None,
        job=SimpleNamespace(
            config=config,
            train_plan=SimpleNamespace(order=plan),
            label_map=SimpleNamespace(fields=("label",), num_classes={"label": 3}),
        ),
        inputs=SimpleNamespace(training=lambda batch, augment, epoch: {"pixels": pixels}),
        strategy=SimpleNamespace(
            device=torch.device("cpu"), dtype=torch.float32, engine=lambda inputs: {"label": network(inputs["pixels"])}
        ),
    )
    return worker, network


def batch_of(accumulation: int) -> dict[str, np.ndarray]:
    numbers = {"accumulation": accumulation, "step": 7}
    columns = {name: np.full(2, value) for name, value in numbers.items()}
    return columns | {"labels": np.array([[0], [2]]), "valid": np.ones(2, bool)}


def test_what_a_micro_batch_draws_depends_on_its_place_in_the_step_and_not_on_the_workers():
    places = [(place // size, place % size, size) for place in (2, 3) for size in (1, 2, 3, 4, 6)]
    losses = [loop._loss(worker_of(rank, size)[0], batch_of(part), 1).item() for part, rank, size in places]
    assert len(set(losses[:5])) == len(set(losses[5:])) == 1
    assert losses[0] != losses[5]


def test_blank_clips_have_no_gradient_but_show_weights_that_are_not_finite():
    worker, network = worker_of(0, 1)
    loss = loop._loss(worker, batch_of(0), 1, blank=True)
    loss.backward()
    assert loss.item() == 0.0
    assert all((parameter.grad == 0).all() for parameter in network.parameters())
    with torch.no_grad():
        network[0].bias[1] = torch.nan
    assert not np.isfinite(loop._loss(worker, batch_of(0), 1, blank=True).item())


def summed_gradients(saving: Saving, world_size: int) -> tuple[list[torch.Tensor], int]:
    """What an epoch's steps add to a network's gradient, all ranks one after the other, and the clips that counted."""
    network, seen = None, []
    for rank in range(world_size):
        worker, fresh = worker_of(rank, world_size)
        network = network or fresh
        plan = EpochPlan(num_clips=11, seed=0, micro_batch=2, micro_batches_per_step=4, world_size=world_size)
        worker.job.train_plan.order = plan
        config = worker.job.config
        vars(config).update(
            validate_every=1, checkpoint_every=None, log_every=1, data=SimpleNamespace(max_unreadable=0)
        )
        vars(config.optim).update(on_bad_loss="stop", epochs=2)
        worker.inputs = SimpleNamespace(sound=False, training=lambda batch, *_: {"pixels": pixels_of(batch["clip"])})
        worker.strategy.engine = lambda inputs, network=network: {"label": network(inputs["pixels"])}
        # As DeepSpeed does it: the mean over accumulation and workers.
        parts = plan.accumulation * world_size
        worker.strategy.step = lambda loss, rate, parts=parts: (loss / parts).backward()
        worker.strategy.grad_norm = None
        worker.watchdog = SimpleNamespace(beat=lambda doing: None, begin=lambda: None)
        worker.log = RunLog(0, SimpleNamespace(post=SimpleNamespace(remote=lambda row: None)), [])
        worker.saving, worker.listener, worker.preemption = saving, None, Preemption()
        worker.learning_rates = np.ones(10)
        stream = (delivered(place, epoch=1) for place in plan.micro_batches(1) if place.rank == rank)
        epoch = loop.Epoch(worker, 1)
        add = epoch._meter.add
        epoch._meter.add = lambda loss, rows, clips, unreadable, add=add: (
            seen.append(clips - unreadable),
            add(loss, rows=rows, clips=clips, unreadable=unreadable),
        )
        epoch.train(stream, 0)
    return [parameter.grad for parameter in network.parameters()], sum(seen)


def pixels_of(clips: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(clips).float()[:, None] * torch.tensor([0.1, -0.2, 0.3, 0.05]) + 1


def delivered(place, epoch: int) -> dict[str, np.ndarray]:
    """A micro batch as the pipeline makes it."""
    size = len(place.clips)
    return {
        "clip": place.clips,
        "clip_id": np.array([str(clip) for clip in place.clips], dtype=object),
        "labels": place.clips[:, None] % 3,
        "valid": place.clips >= 0,
        "reason": np.array([""] * size, dtype=object),
        "epoch": np.full(size, epoch),
        "step": np.full(size, place.step),
        "accumulation": np.full(size, place.accumulation),
    }


@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_workers_that_do_not_divide_a_step_evenly_have_the_gradient_of_one_worker(saving, monkeypatch, world_size):
    """Three workers share four micro batches: two of six are padding, and so is a part of the last batch of clips."""
    monkeypatch.setattr(loop, "agree", lambda notice, device: notice)
    expected, clips = summed_gradients(saving, 1)
    found, counted = summed_gradients(saving, world_size)
    assert clips == counted == 11
    assert all(gradient.abs().max() > 0 for gradient in expected)
    for one, other in zip(expected, found, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-7)
