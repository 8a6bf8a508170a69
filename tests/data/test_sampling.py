import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cast_ray.data.sampling import (
    dense_centre,
    dense_test_views,
    dense_train,
    sound_centre,
    sound_test_views,
    sound_train,
    three_crops,
    uniform_centre,
    uniform_test_views,
    uniform_train,
)

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "test_views.json").read_text())
LENGTHS = st.integers(1, 5000)


def slow_uniform_views(video_frames: int, num_frames: int) -> list[list[int]]:
    """Literal form of the paper's rule: starts and middles of the segments, sorted, dealt out in turn."""
    tick = video_frames / float(num_frames)
    picked = sorted([int(tick * i) for i in range(num_frames)] + [int(tick * i + tick / 2) for i in range(num_frames)])
    return [picked[0::2], picked[1::2]]


def slow_dense_views(video_frames: int, num_frames: int, stride: int, num_views: int) -> list[list[int]]:
    """Literal form: list every stride-th frame, pad it, cut evenly spaced windows (float step, rounded down)."""
    listed = list(range(0, video_frames, stride))
    while len(listed) < num_frames:
        listed.append(listed[-1])
    step = (len(listed) - num_frames) / (num_views - 1)
    return [listed[int(v * step) : int(v * step) + num_frames] for v in range(num_views)]


def slow_three_crops(height: int, width: int, size: int) -> tuple[tuple[int, int], tuple[int, ...], str]:
    resized = (size, int(size * width / height)) if height <= width else (int(size * height / width), size)
    step = 1.0 * (max(resized) - size) / 2
    return resized, tuple(int(i * step) for i in range(3)), "height" if resized[0] >= resized[1] else "width"


@pytest.mark.parametrize("length", GOLDEN["uniform_test_views"])
def test_uniform_views_equal_the_golden_ones(length):
    assert uniform_test_views(int(length), 16, 2).tolist() == GOLDEN["uniform_test_views"][length]


@pytest.mark.parametrize("length", GOLDEN["dense_test_views"])
def test_dense_views_equal_the_golden_ones(length):
    assert dense_test_views(int(length), 16, 4, 5).tolist() == GOLDEN["dense_test_views"][length]


@pytest.mark.parametrize("size", GOLDEN["three_crops"])
def test_crops_equal_the_golden_ones(size):
    height, width = map(int, size.split("x"))
    plan = three_crops(height, width, 224)
    assert {"resized": list(plan.resized), "offsets": list(plan.offsets), "axis": plan.axis} == GOLDEN["three_crops"][
        size
    ]


def test_views_equal_the_literal_rule_for_every_length():
    for length in range(1, 1200):
        for num_frames in (8, 12, 16):
            assert uniform_test_views(length, num_frames, 2).tolist() == slow_uniform_views(length, num_frames)
        for num_views in (2, 5, 8, 10):
            assert dense_test_views(length, 16, 4, num_views).tolist() == slow_dense_views(length, 16, 4, num_views)


@given(st.integers(1, 3000), st.integers(1, 3000), st.sampled_from([32, 112, 224, 336]))
def test_crops_equal_the_literal_rule(height, width, size):
    plan = three_crops(height, width, size)
    assert (plan.resized, plan.offsets, plan.axis) == slow_three_crops(height, width, size)
    assert plan.offsets[2] + size == max(plan.resized)


@given(LENGTHS, st.integers(1, 64), st.integers(0, 2**32))
def test_uniform_training_takes_one_frame_from_each_segment(length, num_frames, seed):
    indices = uniform_train(length, num_frames, np.random.default_rng(seed))
    assert indices.shape == (num_frames,)
    assert indices.dtype == np.int64
    for i, index in enumerate(indices.tolist()):
        assert i * length // num_frames <= index <= (i + 1) * length / num_frames
        assert 0 <= index < length


def test_uniform_training_reaches_every_frame_equally_often():
    rng = np.random.default_rng(0)
    counts = np.bincount(np.concatenate([uniform_train(45, 16, rng) for _ in range(4000)]), minlength=45)
    # Each frame is expected 4000 * 16 / 45 = 1422 times, standard deviation at most 31.
    assert np.abs(counts - 4000 * 16 / 45).max() < 5 * 31


@given(LENGTHS, st.integers(1, 32), st.integers(1, 8), st.integers(0, 2**32))
def test_dense_training_takes_a_window_at_the_stride(length, num_frames, stride, seed):
    indices = dense_train(length, num_frames, stride, np.random.default_rng(seed))
    assert indices.shape == (num_frames,)
    if length >= num_frames * stride:
        assert set(np.diff(indices).tolist()) <= {stride}
    else:
        assert indices.tolist() == [min(i * stride, length - 1) for i in range(num_frames)]
    assert indices.min() >= 0
    assert indices.max() < length


def test_dense_training_starts_everywhere():
    rng = np.random.default_rng(0)
    starts = {int(dense_train(70, 16, 4, rng)[0]) for _ in range(500)}
    assert starts == set(range(7))


def test_validation_views_are_the_middle():
    assert uniform_centre(64, 16).tolist() == list(range(2, 64, 4))
    assert uniform_centre(117, 16).tolist() == GOLDEN["uniform_test_views"]["117"][1]
    assert dense_centre(100, 16, 4).tolist() == list(range(18, 82, 4))
    assert dense_centre(5, 4, 2).tolist() == [0, 2, 4, 4]
    assert dense_test_views(300, 16, 4, 1).tolist() == [list(range(116, 180, 4))]


def test_three_uniform_views_share_each_segment_evenly():
    assert uniform_test_views(24, 4, 3).tolist() == [[0, 6, 12, 18], [2, 8, 14, 20], [4, 10, 16, 22]]


@pytest.mark.parametrize(
    "call",
    [
        lambda: uniform_centre(0, 16),
        lambda: uniform_test_views(5, 16, 0),
        lambda: dense_test_views(5, 16, 0, 5),
        lambda: three_crops(0, 5, 224),
    ],
)
def test_sizes_below_one_are_refused(call):
    with pytest.raises(ValueError, match="must be at least 1"):
        call()


def test_six_views_hear_the_published_pieces():
    spare = 120_000
    expected = [int(spare * (3 * chunk + crop + 3) / 12) for chunk in range(2) for crop in range(3)]
    assert sound_test_views(spare + 64_240, 64_240, 6).tolist() == expected


@given(st.integers(0, 10**6), st.integers(1, 10**5), st.integers(1, 30))
def test_pieces_of_sound_lie_inside_and_move_forward_evenly(num_samples, wanted, num_views):
    starts = sound_test_views(num_samples, wanted, num_views)
    spare = max(num_samples - wanted, 0)
    assert starts.shape == (num_views,)
    assert (starts >= 0).all()
    assert (starts <= spare).all()
    if num_views > 1:
        np.testing.assert_allclose(starts, spare / 4 + spare * np.arange(num_views) / (2 * num_views), atol=1)


@given(st.integers(0, 10**6), st.integers(1, 10**5))
def test_one_view_hears_the_middle_as_validation_does(num_samples, wanted):
    start = sound_centre(num_samples, wanted)
    assert sound_test_views(num_samples, wanted, 1).tolist() == [start]
    before, after = start, max(num_samples - wanted, 0) - start
    assert after - before in (0, 1)


def test_training_hears_every_piece_with_the_same_chance():
    rng = np.random.default_rng(0)
    starts = np.array([sound_train(1009, 1000, rng) for _ in range(4000)])
    assert np.bincount(starts, minlength=10).min() > 320
    assert starts.max() == 9
    assert {sound_train(500, 1000, rng) for _ in range(20)} == {0}
