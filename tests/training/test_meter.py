"""What the meter measures, against a clock that the test turns."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import SimpleNamespace

import psutil
import pytest
import torch
import torch.distributed as dist

from cast_ray.training.meter import Interval, Meter, WorkerInterval

MEMORY = 3_000_000_001
PADDING, UNREADABLE = "padding", "unreadable"
Rows = list[float | str]
"""One micro batch: the loss of each clip, or why it has none."""


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def pass_time(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture(autouse=True)
def memory(monkeypatch) -> None:
    memory = SimpleNamespace(memory_info=lambda: SimpleNamespace(rss=MEMORY))
    monkeypatch.setattr(psutil, "Process", lambda: memory)


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "perf_counter", lambda: clock.now)
    return clock


def slow(clock: Clock, batches: list[Rows], seconds: float) -> Iterator[Rows]:
    for batch in batches:
        clock.pass_time(seconds)
        yield batch


def train(meter: Meter, clock: Clock, batches: list[Rows], *, waiting: float, working: float) -> None:
    for batch in meter.timed(slow(clock, batches, waiting)):
        clock.pass_time(working)
        losses = torch.tensor([0.0 if isinstance(loss, str) else loss for loss in batch])
        clips = len(batch) - batch.count(PADDING)
        meter.add(losses.mean(), rows=len(batch), clips=clips, unreadable=batch.count(UNREADABLE))


def interval(workers: list[tuple[float, float]], **figures: float) -> Interval:
    """As measured, with (clips/s, share of waiting) of each worker."""
    return Interval(
        workers=tuple(
            WorkerInterval(clips_per_s=clips_per_s, data_wait=data_wait, memory=MEMORY, gpu_memory=0)
            for clips_per_s, data_wait in workers
        ),
        **figures,
    )


def cpu_meter() -> Meter:
    return Meter(torch.device("cpu"))


def test_an_interval_has_mean_loss_throughput_and_share_of_waiting(clock):
    meter = cpu_meter()
    train(meter, clock, [[1.0, 2.0], [3.0, 4.0], [5.0, 9.0]], waiting=3.0, working=1.0)
    assert meter.reduce() == interval(
        [(0.5, 0.75)], loss=4.0, clips_per_s=0.5, data_wait=0.75, unreadable=0, seconds=12.0
    )


def test_padding_is_no_clip_and_neither_it_nor_an_unreadable_clip_lowers_the_loss(clock):
    meter = cpu_meter()
    train(meter, clock, [[4.0, UNREADABLE], [4.0, PADDING], [PADDING, PADDING]], waiting=0.0, working=1.0)
    assert meter.reduce() == interval([(1.0, 0.0)], loss=4.0, clips_per_s=1.0, data_wait=0.0, unreadable=1, seconds=3.0)


def test_an_interval_without_a_readable_clip_has_loss_0(clock):
    meter = cpu_meter()
    train(meter, clock, [[UNREADABLE, PADDING]], waiting=0.0, working=1.0)
    assert meter.reduce().loss == 0.0


def test_the_next_interval_starts_anew(clock):
    meter = cpu_meter()
    train(meter, clock, [[100.0, 100.0], [100.0, UNREADABLE]], waiting=50.0, working=10.0)
    meter.reduce()
    train(meter, clock, [[2.0] * 10], waiting=1.0, working=4.0)
    assert meter.reduce() == interval([(2.0, 0.2)], loss=2.0, clips_per_s=2.0, data_wait=0.2, unreadable=0, seconds=5.0)


def test_all_batches_pass_unchanged_and_in_order(clock):
    batches = [[float(number)] for number in range(5)]
    assert list(cpu_meter().timed(slow(clock, batches, 1.0))) == batches


def test_clips_add_up_over_workers_and_times_do_not(clock, monkeypatch):
    sent = []

    def gather(everyone: list[torch.Tensor], mine: torch.Tensor) -> None:
        sent.append(mine)
        for place, value in zip(everyone, (mine, sent[0]), strict=True):
            place.copy_(value)

    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(dist, "all_gather", gather)
    other = cpu_meter()
    train(other, clock, [[6.0, PADDING], [PADDING, PADDING]], waiting=1.0, working=1.0)
    other.reduce()
    meter = cpu_meter()
    train(meter, clock, [[2.0, 2.0], [2.0, UNREADABLE]], waiting=0.0, working=2.0)
    assert meter.reduce() == interval(
        [(1.0, 0.0), (0.25, 0.5)], loss=3.0, clips_per_s=1.25, data_wait=0.25, unreadable=1, seconds=4.0
    )


def test_the_loss_of_a_batch_can_still_be_propagated(clock):
    meter = cpu_meter()
    weight = torch.ones((), requires_grad=True)
    loss = weight * 2
    meter.add(loss, rows=1, clips=1, unreadable=0)
    clock.pass_time(1)
    assert meter.reduce().loss == 2.0
    loss.backward()
    assert weight.grad == 2.0
