"""From the order to the rows of every rank, without a cluster: tasks, passes, and the check of what arrives."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray import cloudpickle

from cast_ray.data import pipeline
from cast_ray.data.order import PADDING, EpochPlan, MicroBatch, Position
from cast_ray.data.pipeline import (
    PassPlan,
    PassSource,
    check_unreadable,
    expect_rows,
    iterate_once,
    iterate_run,
    unreadable_clips,
)
from cast_ray.errors import UserError

Place = tuple[int, int, int, int]
"""epoch, step, accumulation, clip"""

ORDERS = st.builds(
    EpochPlan,
    num_clips=st.integers(1, 40),
    seed=st.integers(0, 99),
    micro_batch=st.integers(1, 4),
    micro_batches_per_step=st.integers(1, 7),
    world_size=st.integers(1, 4),
    repeats=st.integers(1, 3),
)
RUNS = st.builds(PassPlan, order=ORDERS, epochs=st.integers(1, 5), clips_per_task=st.integers(1, 30))
TASKS_PER_PASS = st.integers(1, 60)
ORDER = EpochPlan(num_clips=10, seed=3, micro_batch=2, micro_batches_per_step=4, world_size=2)
RUN = PassPlan(order=ORDER, epochs=3, clips_per_task=4)
BEGINNING = Position()


@st.composite
def starts(draw, runs=RUNS) -> tuple[PassPlan, Position]:
    plan = draw(runs)
    epoch = draw(st.integers(0, plan.epochs - 1))
    return plan, Position(epoch=epoch, step=draw(st.integers(0, plan.order.steps_per_epoch - 1)))


def listed(plan: PassPlan, rank: int, start: Position) -> list[Place]:
    """Every row that a rank must get, written out with nothing but loops."""
    order = plan.order
    return [
        (epoch, step, accumulation, clip)
        for epoch in range(plan.epochs)
        for step in range(order.steps_per_epoch)
        for accumulation in range(order.accumulation)
        for clip in order.clips(epoch, step, rank)[accumulation].tolist()
        if (epoch, step) >= (start.epoch, start.step)
    ]


def index(num_clips: int) -> pa.Table:
    return pa.table({"clip_id": [f"clip-{number}" for number in range(num_clips)]})


def source(plan: PassPlan, start: Position = BEGINNING) -> PassSource:
    return PassSource(index(plan.order.num_clips), plan, lambda: start)


def tasks(data: PassSource, execution: int) -> list[pa.Table]:
    """The blocks of one execution, as Ray Data would read them."""
    read = data.get_read_tasks(1, data_context=SimpleNamespace(_execution_idx=execution))
    blocks = [list(task()) for task in read]
    assert all(len(block) == 1 for block in blocks)
    assert [task.metadata.num_rows for task in read] == [block.num_rows for (block,) in blocks]
    return [block for (block,) in blocks]


def places(table: pa.Table) -> list[Place]:
    return list(zip(*(table[name].to_pylist() for name in ("epoch", "step", "accumulation", "clip")), strict=True))


def passes(plan: PassPlan, start: Position) -> list[list[pa.Table]]:
    """The blocks of all executions, until one is empty."""
    data, executions = source(plan, start), []
    while blocks := tasks(data, len(executions)):
        executions.append(blocks)
    return executions


@given(starts(), TASKS_PER_PASS)
def test_the_tasks_of_all_executions_are_exactly_the_rest_of_the_plan(plan_and_start, tasks_per_pass):
    plan, start = plan_and_start
    with mock.patch.object(pipeline, "TASKS_PER_PASS", tasks_per_pass):
        executions = passes(plan, start)
    for rank in range(plan.order.world_size):
        received = [
            place for blocks in executions for block in blocks[rank :: plan.order.world_size] for place in places(block)
        ]
        assert received == listed(plan, rank, start)


@given(starts(), TASKS_PER_PASS)
def test_tasks_go_round_the_ranks_and_are_equally_large(plan_and_start, tasks_per_pass):
    plan, start = plan_and_start
    world_size, micro_batch = plan.order.world_size, plan.order.micro_batch
    with mock.patch.object(pipeline, "TASKS_PER_PASS", tasks_per_pass):
        executions = passes(plan, start)
    for blocks in executions:
        sizes = [block.num_rows for block in blocks]
        rounds = [sizes[first : first + world_size] for first in range(0, len(sizes), world_size)]
        assert all(len(set(of_one_round)) == 1 and len(of_one_round) == world_size for of_one_round in rounds)
        # All rounds are full except the last, and no task is larger than asked for, or than one micro batch.
        full = max(plan.clips_per_task // micro_batch, 1) * micro_batch
        assert {size for of_one_round in rounds[:-1] for size in of_one_round} <= {full}
        assert 0 < rounds[-1][0] <= full


@given(st.integers(1, 40), st.integers(1, 3), st.integers(0, 9), st.integers(1, 12))
def test_the_number_of_workers_does_not_change_the_steps(num_clips, micro_batch, seed, clips_per_task):
    steps = []
    for world_size in (1, 2, 3, 4):
        order = EpochPlan(
            num_clips=num_clips, seed=seed, micro_batch=micro_batch, micro_batches_per_step=4, world_size=world_size
        )
        plan = PassPlan(order=order, epochs=2, clips_per_task=clips_per_task)
        rows = [place for blocks in passes(plan, BEGINNING) for block in blocks for place in places(block)]
        steps.append(sorted((epoch, step, clip) for epoch, step, _, clip in rows if clip != PADDING))
    assert steps[0] == steps[1] == steps[2] == steps[3]


@given(RUNS)
def test_every_row_is_that_of_its_clip(plan):
    for blocks in passes(plan, BEGINNING):
        for block in blocks:
            for clip, clip_id in zip(block["clip"].to_pylist(), block["clip_id"].to_pylist(), strict=True):
                assert clip == PADDING or clip_id == f"clip-{clip}"


@given(RUNS, TASKS_PER_PASS)
def test_a_pass_has_a_limited_number_of_tasks_but_at_least_one_epoch(plan, tasks_per_pass):
    with mock.patch.object(pipeline, "TASKS_PER_PASS", tasks_per_pass):
        clips_per_pass = plan.epochs_per_pass * plan.order.rows_per_epoch
        assert 1 <= plan.epochs_per_pass <= plan.epochs
        if plan.epochs_per_pass > 1:
            assert clips_per_pass / (plan.batches_per_task * plan.order.micro_batch) <= tasks_per_pass
        assert len(passes(plan, BEGINNING)) == -(-plan.epochs // plan.epochs_per_pass)


def test_every_execution_of_a_plan_without_epochs_is_the_same_single_epoch():
    plan = PassPlan(order=ORDER, epochs=None, clips_per_task=4)
    first, second = (tasks(source(plan), execution) for execution in (0, 5))
    assert [places(block) for block in first] == [places(block) for block in second]
    clips = [clip for block in first for *_, clip in places(block)]
    assert sorted(clip for clip in clips if clip != PADDING) == list(range(ORDER.num_clips))


def test_ray_may_ask_how_many_tasks_there_will_be_before_the_first_execution():
    data = source(RUN)
    assert len(data.get_read_tasks(200)) == len(tasks(data, 0))
    assert data.estimate_inmemory_data_size() is None


def test_the_start_is_asked_for_when_the_source_is_made():
    asked = []

    def start() -> Position:
        asked.append(True)
        return Position(epoch=2)

    data = PassSource(index(ORDER.num_clips), RUN, start)
    assert places(tasks(data, 0)[0])[0][0] == 2
    assert asked == [True]


class Shard:
    """What one rank sees of a split dataset: every second (third ...) block, rebatched; one pass per iteration."""

    def __init__(self, plan: PassPlan, rank: int, start: Position, change=lambda rows: rows) -> None:
        self._plan, self._rank, self._source, self._change = plan, rank, source(plan, start), change
        self.executions = 0

    def iter_batches(self, *, batch_size: int, batch_format: str, prefetch_batches: int) -> Iterator[dict]:
        assert batch_format == "numpy"
        blocks = tasks(self._source, self.executions)[self._rank :: self._plan.order.world_size]
        self.executions += 1
        rows = self._change([row for block in blocks for row in block.to_pylist()])
        for first in range(0, len(rows), batch_size):
            batch = rows[first : first + batch_size]
            yield {name: np.array([row[name] for row in batch]) for name in batch[0]}


@given(starts(), TASKS_PER_PASS)
def test_a_rank_iterates_over_its_batches_from_the_start_to_the_end_of_the_run(plan_and_start, tasks_per_pass):
    plan, start = plan_and_start
    with mock.patch.object(pipeline, "TASKS_PER_PASS", tasks_per_pass):
        for rank in range(plan.order.world_size):
            batches = list(iterate_run(Shard(plan, rank, start), plan=plan, rank=rank, start=start))
            columns = [
                zip(*(batch[c] for c in ("epoch", "step", "accumulation", "clip")), strict=True) for batch in batches
            ]
            assert [tuple(map(int, place)) for column in columns for place in column] == listed(plan, rank, start)
            assert {len(batch["clip"]) for batch in batches} == {plan.order.micro_batch}


def test_validation_iterates_over_one_execution():
    plan = PassPlan(order=ORDER, epochs=None, clips_per_task=4)
    shard = Shard(plan, 1, BEGINNING)
    assert len(list(iterate_once(shard, plan=plan, rank=1))) == ORDER.steps_per_epoch * ORDER.accumulation
    assert len(list(iterate_once(shard, plan=plan, rank=1))) == ORDER.steps_per_epoch * ORDER.accumulation
    assert shard.executions == 2
    with pytest.raises(ValueError, match="use iterate_once"):
        next(iterate_run(shard, plan=plan, rank=1, start=BEGINNING))


def swap(rows: list[dict]) -> list[dict]:
    return [rows[1], rows[0], *rows[2:]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (swap, "expected epoch 0"),
        (lambda rows: rows[1:], "expected epoch 0"),
        (lambda rows: rows[: ORDER.micro_batch] + rows, "expected epoch 0"),
        (lambda rows: rows[: -ORDER.micro_batch], "the data ended early for rank 0"),
        (lambda rows: rows[:-1], "this Ray version splits blocks in another way"),
        (lambda rows: rows + rows[-ORDER.micro_batch :], "more rows than the plan has"),
    ],
    ids=["swapped", "missing first", "doubled first", "missing batch", "missing last", "surplus batch"],
)
def test_rows_that_are_not_those_of_the_plan_stop_the_run(change, message):
    shard = Shard(RUN, 0, BEGINNING, change)
    with pytest.raises(RuntimeError, match=message):
        list(iterate_run(shard, plan=RUN, rank=0, start=BEGINNING))


def test_the_rows_of_another_rank_stop_the_run():
    with pytest.raises(RuntimeError, match="expected epoch 0"):
        next(iterate_run(Shard(RUN, 1, BEGINNING), plan=RUN, rank=0, start=BEGINNING))


EXPECTED = (4, MicroBatch(step=2, accumulation=1, rank=0, clips=np.array([7, 3, PADDING]), views=np.array([0, 1, 0])))
DELIVERED = {
    "epoch": [4, 4, 4],
    "step": [2, 2, 2],
    "accumulation": [1, 1, 1],
    "clip": [7, 3, PADDING],
    "view": [0, 1, 0],
}


def rows(**changes: list[int]) -> dict[str, np.ndarray]:
    return {name: np.array(values) for name, values in (DELIVERED | changes).items()}


def test_the_expected_rows_pass():
    expect_rows(rows(), EXPECTED)


@pytest.mark.parametrize(
    "changes",
    [
        {"clip": [3, 7, PADDING]},
        {"clip": [7, 3, 5]},
        {"view": [1, 0, 0]},
        {"epoch": [4, 4, 5]},
        {"step": [2, 3, 2]},
        {"accumulation": [0, 1, 1]},
        {name: values[:2] for name, values in DELIVERED.items()},
        {name: values + values[-1:] for name, values in DELIVERED.items()},
    ],
    ids=["swapped", "clip for padding", "view", "epoch", "step", "accumulation", "missing", "surplus"],
)
def test_one_wrong_row_of_a_batch_is_found(changes):
    with pytest.raises(RuntimeError, match="expected epoch 4"):
        expect_rows(rows(**changes), EXPECTED)


def test_rows_after_the_last_planned_ones_are_found():
    with pytest.raises(RuntimeError, match="more rows than the plan has"):
        expect_rows(rows(), None)


def test_unreadable_clips_are_listed_with_their_reason_and_padding_is_not_among_them():
    batch = {
        "clip": np.array([4, 2, PADDING, 0]),
        "clip_id": np.array(["clip-4", "clip-2", "clip-0", "clip-0"], dtype=object),
        "valid": np.array([True, False, False, False]),
        "reason": np.array(["", "no video stream", "", "file is empty"], dtype=object),
    }
    assert unreadable_clips(batch) == {"clip-2": "no video stream", "clip-0": "file is empty"}


@given(st.integers(1, 5000).flatmap(lambda clips: st.tuples(st.integers(0, clips), st.just(clips))))
def test_exactly_the_allowed_share_may_be_unreadable(unreadable_of_clips):
    unreadable, clips = unreadable_of_clips
    check_unreadable(unreadable, clips, unreadable / clips, "train")
    if unreadable < clips:
        with pytest.raises(UserError, match=f"{unreadable + 1} of {clips} clips in the train split are unreadable"):
            check_unreadable(unreadable + 1, clips, unreadable / clips, "train")


@pytest.mark.parametrize(("allowed", "clips", "most"), [(0.01, 100, 1), (0.29, 100, 29), (0.0, 50, 0), (0.015, 200, 3)])
def test_the_threshold_is_what_its_decimal_says(allowed, clips, most):
    check_unreadable(most, clips, allowed, "train")
    with pytest.raises(UserError, match=r"raise --data\.max-unreadable"):
        check_unreadable(most + 1, clips, allowed, "train")


def test_a_read_task_holds_its_own_rows_only():
    clips = 5000
    index = pa.table({"clip_id": [f"clip {number:05d}" for number in range(clips)]})
    order = EpochPlan(num_clips=clips, seed=0, micro_batch=8, micro_batches_per_step=2, world_size=2)
    source = PassSource(index, PassPlan(order=order, epochs=1, clips_per_task=16), Position)
    tasks = source.get_read_tasks(1)
    assert len(tasks) == 2 * -(-order.steps_per_epoch // 2)
    assert max(len(cloudpickle.dumps(task)) for task in tasks) < 6000
    first = next(iter(tasks[0]()))
    assert first["clip_id"].to_pylist() == [f"clip {clip:05d}" for clip in first["clip"].to_pylist()]


@pytest.mark.parametrize(("clips", "global_batch"), [(1, 256), (300, 256), (5000, 8)])
def test_a_pass_has_a_bounded_number_of_tasks_with_padding(clips, global_batch):
    order = EpochPlan(
        num_clips=clips, seed=0, micro_batch=8, micro_batches_per_step=global_batch // 8, world_size=global_batch // 8
    )
    plan = PassPlan(order=order, epochs=100_000, clips_per_task=32)
    index = pa.table({"clip_id": ["a"] * clips})
    if plan.epochs_per_pass > 1:
        assert len(PassSource(index, plan, Position).get_read_tasks(1)) <= pipeline.TASKS_PER_PASS + global_batch // 8
