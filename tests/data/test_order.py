import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cast_ray.data.order import PADDING, EpochPlan

PLANS = st.builds(
    EpochPlan,
    num_clips=st.integers(1, 200),
    seed=st.integers(0, 2**40),
    micro_batch=st.integers(1, 5),
    accumulation=st.integers(1, 4),
    world_size=st.integers(1, 8),
    shuffle=st.booleans(),
)


def streamed(plan: EpochPlan, epoch: int, start_step: int = 0) -> list[list[int]]:
    return [batch.clips.tolist() for batch in plan.micro_batches(epoch, start_step)]


def flat(batches: list[list[int]]) -> list[int]:
    return list(itertools.chain.from_iterable(batches))


@given(PLANS, st.integers(0, 1000))
def test_each_clip_comes_exactly_once_per_epoch(plan, epoch):
    clips = flat(streamed(plan, epoch))
    present = [clip for clip in clips if clip != PADDING]
    assert sorted(present) == list(range(plan.num_clips))
    # Padding stands at the very end, and less than one global batch of it.
    assert clips[len(present) :] == [PADDING] * (len(clips) - len(present))
    assert len(clips) - len(present) < plan.global_batch


@given(PLANS, st.integers(0, 5))
def test_all_ranks_have_equal_counts_and_what_is_streamed(plan, epoch):
    seen = {(b.step, b.accumulation, b.rank): b.clips.tolist() for b in plan.micro_batches(epoch)}
    assert len(seen) == plan.steps_per_epoch * plan.accumulation * plan.world_size
    for rank in range(plan.world_size):
        for step in range(plan.steps_per_epoch):
            clips = plan.clips(epoch, step, rank)
            assert clips.shape == (plan.accumulation, plan.micro_batch)
            assert clips.tolist() == [seen[step, a, rank] for a in range(plan.accumulation)]


@given(st.integers(1, 300), st.integers(1, 4), st.integers(0, 9), st.integers(0, 9))
def test_the_world_size_does_not_change_the_micro_batches(num_clips, micro_batch, seed, epoch):
    streams = [
        streamed(
            EpochPlan(
                num_clips=num_clips,
                seed=seed,
                micro_batch=micro_batch,
                accumulation=8 // world_size,
                world_size=world_size,
            ),
            epoch,
        )
        for world_size in (1, 2, 4, 8)
    ]
    assert streams[0] == streams[1] == streams[2] == streams[3]


@given(st.integers(0, 9), st.integers(0, 5))
def test_global_batches_are_slices_of_one_permutation(seed, epoch):
    plan = EpochPlan(num_clips=50, seed=seed, micro_batch=3, accumulation=2, world_size=2)
    permutation = flat(streamed(plan, epoch))[:50]
    for step in range(plan.steps_per_epoch):
        batch = np.stack([plan.clips(epoch, step, rank) for rank in range(2)])
        expected = set(permutation[step * 12 : (step + 1) * 12])
        assert set(batch.ravel().tolist()) - {PADDING} == expected


@given(PLANS, st.integers(0, 5), st.data())
def test_resuming_gives_exactly_the_remaining_batches(plan, epoch, data):
    step = data.draw(st.integers(0, plan.steps_per_epoch))
    per_step = plan.accumulation * plan.world_size
    assert streamed(plan, epoch, start_step=step) == streamed(plan, epoch)[step * per_step :]


def test_epochs_and_seeds_differ_and_repeat_themselves():
    plans = [EpochPlan(num_clips=100, seed=s, micro_batch=10, accumulation=1, world_size=1) for s in (0, 1)]
    orders = [tuple(flat(streamed(plan, epoch))) for plan in plans for epoch in (0, 1)]
    assert len(set(orders)) == 4
    assert tuple(flat(streamed(plans[0], 0))) == orders[0]
    # Not merely a rotation or a swap: about one clip in a hundred keeps its place.
    assert sum(a == b for a, b in zip(orders[0], orders[1], strict=True)) < 10


def test_without_shuffle_clips_come_in_their_own_order():
    plan = EpochPlan(num_clips=5, seed=3, micro_batch=2, accumulation=1, world_size=2, shuffle=False)
    assert streamed(plan, 0) == streamed(plan, 9) == [[0, 1], [2, 3], [4, PADDING], [PADDING, PADDING]]
    assert (plan.global_batch, plan.steps_per_epoch) == (4, 2)


@pytest.mark.parametrize("name", ["num_clips", "micro_batch", "accumulation", "world_size"])
def test_sizes_below_one_are_refused(name):
    sizes = {"num_clips": 1, "micro_batch": 1, "accumulation": 1, "world_size": 1, name: 0}
    with pytest.raises(ValueError, match=f"{name} is 0"):
        EpochPlan(seed=0, **sizes)


def test_positions_outside_the_epoch_are_refused():
    plan = EpochPlan(num_clips=4, seed=0, micro_batch=2, accumulation=1, world_size=1)
    with pytest.raises(ValueError, match="step is 2"):
        plan.clips(0, 2, 0)
    with pytest.raises(ValueError, match="rank is 1"):
        plan.clips(0, 0, 1)


def test_what_the_caller_writes_does_not_reach_the_cache():
    plan = EpochPlan(num_clips=4, seed=0, micro_batch=4, accumulation=1, world_size=1)
    before = plan.clips(0, 0, 0).copy()
    plan.clips(0, 0, 0)[:] = 99
    assert plan.clips(0, 0, 0).tolist() == before.tolist()
