import dataclasses
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
    micro_batches_per_step=st.integers(1, 12),
    world_size=st.integers(1, 8),
    shuffle=st.booleans(),
    repeats=st.integers(1, 4),
)


def streamed(plan: EpochPlan, epoch: int, start_step: int = 0) -> list[list[int]]:
    return [batch.clips.tolist() for batch in plan.micro_batches(epoch, start_step)]


def flat(batches: list[list[int]]) -> list[int]:
    return list(itertools.chain.from_iterable(batches))


@given(PLANS, st.integers(0, 1000))
def test_each_view_of_each_clip_comes_exactly_once_per_epoch_over_all_ranks(plan, epoch):
    clips = flat(streamed(plan, epoch))
    views = flat([batch.views.tolist() for batch in plan.micro_batches(epoch)])
    places = list(zip(clips, views, strict=True))
    present = [place for place in places if place[0] != PADDING]
    assert plan.rows_per_epoch == len(present) == plan.num_clips * plan.repeats
    assert sorted(present) == list(itertools.product(range(plan.num_clips), range(plan.repeats)))
    assert set(places) - set(present) <= {(PADDING, 0)}


@given(PLANS, st.integers(0, 1000))
def test_padding_ends_a_step_and_there_is_no_more_of_it_than_needed(plan, epoch):
    divided = plan.accumulation * plan.world_size
    assert plan.micro_batches_per_step <= divided < plan.micro_batches_per_step + plan.world_size
    for step in range(plan.steps_per_epoch):
        rows = np.stack([plan.clips(epoch, step, rank) for rank in range(plan.world_size)], axis=1).ravel()
        size = min(plan.global_batch, plan.rows_per_epoch - step * plan.global_batch)
        assert size > 0
        assert (rows[:size] != PADDING).all()
        assert (rows[size:] == PADDING).all()


@given(PLANS, st.integers(0, 5))
def test_all_ranks_have_equal_counts_and_what_is_streamed(plan, epoch):
    seen = {(b.step, b.accumulation, b.rank): b.clips.tolist() for b in plan.micro_batches(epoch)}
    assert len(seen) == plan.steps_per_epoch * plan.accumulation * plan.world_size
    for rank in range(plan.world_size):
        for step in range(plan.steps_per_epoch):
            clips = plan.clips(epoch, step, rank)
            assert clips.shape == (plan.accumulation, plan.micro_batch)
            assert clips.tolist() == [seen[step, a, rank] for a in range(plan.accumulation)]


@given(PLANS, st.integers(0, 1000))
def test_repetitions_of_a_clip_stand_next_to_each_other_in_order(plan, epoch):
    once = [clip for clip in flat(streamed(dataclasses.replace(plan, repeats=1), epoch)) if clip != PADDING]
    rows = [
        row
        for batch in plan.micro_batches(epoch)
        for row in zip(batch.clips.tolist(), batch.views.tolist(), strict=True)
        if row[0] != PADDING
    ]
    assert rows == [(clip, view) for clip in once for view in range(plan.repeats)]


@given(PLANS, st.integers(1, 30), st.integers(0, 1000))
def test_the_world_size_does_not_change_the_batches(plan, world_size, epoch):
    """24 micro batches per global batch, on 1 worker and on `world_size` of them, also where 24 does not divide."""
    alone = dataclasses.replace(plan, world_size=1, micro_batches_per_step=24)
    many = dataclasses.replace(plan, world_size=world_size, micro_batches_per_step=24)
    streams = [
        [
            (batch.step, batch.clips.tolist(), batch.views.tolist())
            for batch in one.micro_batches(epoch)
            if batch.accumulation * one.world_size + batch.rank < 24
        ]
        for one in (alone, many)
    ]
    assert streams[0] == streams[1]
    assert alone.global_batch == many.global_batch


@given(st.integers(0, 9), st.integers(0, 5))
def test_global_batches_are_slices_of_one_permutation(seed, epoch):
    plan = EpochPlan(num_clips=50, seed=seed, micro_batch=3, micro_batches_per_step=4, world_size=2)
    permutation = flat(streamed(plan, epoch))[:50]
    for step in range(plan.steps_per_epoch):
        batch = np.stack([plan.clips(epoch, step, rank) for rank in range(2)])
        expected = set(permutation[step * 12 : (step + 1) * 12])
        assert set(batch.ravel().tolist()) - {PADDING} == expected


@given(PLANS, st.integers(0, 5), st.data())
def test_resuming_gives_exactly_the_remaining_batches(plan, epoch, data):
    step = data.draw(st.integers(0, plan.steps_per_epoch))
    whole, rest = (
        [(*batch[:3], batch.clips.tolist(), batch.views.tolist()) for batch in plan.micro_batches(epoch, first)]
        for first in (0, step)
    )
    assert rest == [batch for batch in whole if batch[0] >= step]


def test_epochs_and_seeds_differ_and_repeat_themselves():
    plans = [EpochPlan(num_clips=100, seed=s, micro_batch=10, micro_batches_per_step=1, world_size=1) for s in (0, 1)]
    orders = [tuple(flat(streamed(plan, epoch))) for plan in plans for epoch in (0, 1)]
    assert len(set(orders)) == 4
    assert tuple(flat(streamed(plans[0], 0))) == orders[0]
    # Not merely a rotation or a swap: about one clip in a hundred keeps its place.
    assert sum(a == b for a, b in zip(orders[0], orders[1], strict=True)) < 10


@given(st.integers(8, 500), st.integers(0, 2**40), st.integers(0, 2**20), st.integers(1, 2**20))
def test_epochs_differ(num_clips, seed, epoch, later):
    plan = EpochPlan(num_clips=num_clips, seed=seed, micro_batch=4, micro_batches_per_step=2, world_size=2)
    assert streamed(plan, epoch) != streamed(plan, epoch + later)


def drawn_orders(clips: int, epochs: int) -> np.ndarray:
    """Clips by place of many epochs of one run, [epochs, clips]."""
    plan = EpochPlan(num_clips=clips, seed=11, micro_batch=clips, micro_batches_per_step=1, world_size=1)
    return np.stack([plan.clips(epoch, 0, 0)[0] for epoch in range(epochs)])


def numpy_orders(clips: int, epochs: int) -> np.ndarray:
    rng = np.random.default_rng(5)
    return np.stack([rng.permutation(clips) for _ in range(epochs)])


ORDERS = pytest.mark.parametrize("orders", [drawn_orders, numpy_orders], ids=["ours", "numpy"])
"""One long-lived generator's permutations are the reference: they must meet the same bounds."""


@ORDERS
def test_every_clip_comes_at_every_place_equally_often(orders):
    """Pearson's statistic over its expectation, clips (clips - 1), is 1 +- sqrt(2) / clips for uniform permutations."""
    clips, epochs = 60, 2400
    counts = np.zeros((clips, clips))
    np.add.at(counts, (np.arange(clips)[None], orders(clips, epochs)), 1)
    statistic = ((counts - epochs / clips) ** 2).sum() / (epochs / clips)
    assert abs(statistic / (clips * (clips - 1)) - 1) < 4 * np.sqrt(2) / clips


@ORDERS
def test_every_clip_follows_every_other_equally_often(orders):
    clips, epochs = 40, 2400
    drawn = orders(clips, epochs)
    pairs = np.zeros((clips, clips))
    np.add.at(pairs, (drawn[:, :-1], drawn[:, 1:]), 1)
    off = pairs[~np.eye(clips, dtype=bool)]
    expected = epochs / clips
    assert abs(off.mean() - expected) < 1e-9
    freedoms = (clips - 1) ** 2
    assert abs(((off - expected) ** 2).sum() / expected / freedoms - 1) < 5 * np.sqrt(2 / freedoms)


@ORDERS
def test_clips_move_as_far_as_in_uniform_permutations_of_a_large_dataset(orders):
    """The whole dataset is shuffled, not a window of it: 169,000 clips, as in Something-Something-V2."""
    clips, epochs = 169_000, 3
    for order in orders(clips, epochs):
        # A place and a random clip are a third of the dataset apart; the deviation of |i - j| / n is sqrt(1 / 18).
        displacement = np.abs(order - np.arange(clips)).mean() / clips
        assert abs(displacement - 1 / 3) < 5 * np.sqrt(1 / 18 / clips)
        # Neither with its place, nor with its neighbour, nor with the clip a global batch later.
        assert abs(np.corrcoef(order, np.arange(clips))[0, 1]) < 5 / np.sqrt(clips)
        for lag in (1, 2, 6, 384):
            assert abs(np.corrcoef(order[:-lag], order[lag:])[0, 1]) < 5 / np.sqrt(clips)
        # Neighbours on disk that are neighbours in the order too: 2 on average.
        assert (np.abs(np.diff(order)) == 1).sum() <= 12
        # Each global batch of 384 reaches over the whole dataset: its mean is as spread as that of 384 random clips.
        batches = order[: clips // 384 * 384].reshape(-1, 384).mean(axis=1) / clips
        assert batches.std() == pytest.approx(np.sqrt(1 / 12 / 384), rel=0.15)


@ORDERS
def test_successive_epochs_know_nothing_of_each_other(orders):
    drawn = orders(5000, 40)
    places = np.argsort(drawn, axis=1)
    correlations = [np.corrcoef(one, other)[0, 1] for one, other in itertools.pairwise(places)]
    assert np.abs(correlations).max() < 5 / np.sqrt(5000)
    kept = [(one == other).sum() for one, other in itertools.pairwise(drawn)]
    assert np.mean(kept) == pytest.approx(1, abs=5 / np.sqrt(39))


def test_without_shuffle_clips_come_in_their_own_order():
    plan = EpochPlan(num_clips=5, seed=3, micro_batch=2, micro_batches_per_step=2, world_size=2, shuffle=False)
    assert streamed(plan, 0) == streamed(plan, 9) == [[0, 1], [2, 3], [4, PADDING], [PADDING, PADDING]]
    assert (plan.global_batch, plan.steps_per_epoch) == (4, 2)


@pytest.mark.parametrize("name", ["num_clips", "micro_batch", "micro_batches_per_step", "world_size", "repeats"])
def test_sizes_below_one_are_refused(name):
    sizes = {"num_clips": 1, "micro_batch": 1, "micro_batches_per_step": 1, "world_size": 1, "repeats": 1, name: 0}
    with pytest.raises(ValueError, match=f"{name} is 0"):
        EpochPlan(seed=0, **sizes)


def test_positions_outside_the_epoch_are_refused():
    plan = EpochPlan(num_clips=4, seed=0, micro_batch=2, micro_batches_per_step=1, world_size=1)
    with pytest.raises(ValueError, match="step is 2"):
        plan.clips(0, 2, 0)
    with pytest.raises(ValueError, match="rank is 1"):
        plan.clips(0, 0, 1)


def test_what_the_caller_writes_does_not_reach_the_cache():
    plan = EpochPlan(num_clips=4, seed=0, micro_batch=4, micro_batches_per_step=1, world_size=1)
    before = plan.clips(0, 0, 0).copy()
    plan.clips(0, 0, 0)[:] = 99
    assert plan.clips(0, 0, 0).tolist() == before.tolist()
