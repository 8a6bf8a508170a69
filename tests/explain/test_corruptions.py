from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter1d

from cast_ray.data.randomness import rng_for
from cast_ray.explain.corruptions import CORRUPTIONS, blank, blur, corrupt, freeze, mute, noise, reverse, shuffle

FRAMES = np.random.default_rng(0).integers(0, 256, (8, 12, 12, 3), dtype=np.uint8)
NUMBERED = np.arange(8, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
SOUND = np.random.default_rng(1).normal(0, 3000, 4000).astype(np.int16)


def rng(seed=0):
    return np.random.default_rng(seed)


def order(frames):
    return frames[:, 0, 0, 0].tolist()


@given(share=st.floats(0, 1), seed=st.integers(0, 99))
def test_shuffled_frames_are_the_same_frames_and_exactly_the_share_of_them_has_moved(share, seed):
    shuffled = order(shuffle(NUMBERED, share, rng(seed)))
    moved = sum(place != number for place, number in enumerate(shuffled))
    chosen = round(share * 8)
    assert sorted(shuffled) == list(range(8))
    assert moved == (chosen if chosen != 1 else 0)  # one frame alone has nowhere to go


@given(share=st.floats(0, 1), seed=st.integers(0, 99))
def test_reversal_turns_one_run_round_and_leaves_the_rest(share, seed):
    turned, count = order(reverse(NUMBERED, share, rng(seed))), round(share * 8)
    candidates = [
        [*range(start), *reversed(range(start, start + count)), *range(start + count, 8)]
        for start in range(8 - count + 1)
    ]
    assert turned in candidates


def test_full_reversal_is_the_clip_backwards():
    np.testing.assert_array_equal(reverse(FRAMES, 1.0, rng()), FRAMES[::-1])


@given(share=st.floats(0, 1), seed=st.integers(0, 99))
def test_a_frozen_frame_shows_the_last_one_that_is_not_lost(share, seed):
    shown = order(freeze(NUMBERED, share, rng(seed)))
    lost = {place for place, number in enumerate(shown) if place != number}
    assert 0 not in lost
    assert len(lost) == round(share * 7)
    for place in lost:
        assert shown[place] == max(kept for kept in range(place) if kept not in lost)


def test_all_frames_lost_leave_a_still_picture_of_the_first():
    assert order(freeze(NUMBERED, 1.0, rng())) == [0] * 8


def test_blanked_frames_are_black_and_the_others_as_they_were():
    blanked = blank(FRAMES, 0.5, rng())
    black = (blanked == 0).all(axis=(1, 2, 3))
    assert black.sum() == 4
    np.testing.assert_array_equal(blanked[~black], FRAMES[~black])


@pytest.mark.parametrize("share", [0.01, 0.08, 0.16, 0.5])
def test_blur_is_that_of_scipy(share):
    sigma = share * 12
    expected = FRAMES.astype(np.float64)
    for axis in (1, 2):
        expected = gaussian_filter1d(expected, sigma, axis=axis, mode="nearest", radius=int(np.ceil(4 * sigma)))
    np.testing.assert_allclose(blur(FRAMES, share, rng()), expected, atol=0.51)


@pytest.mark.parametrize("snr", [30.0, 10.0, 0.0, -10.0])
def test_noise_has_the_asked_power_and_follows_no_sample(snr):
    mixed = noise(SOUND, snr, rng()).astype(np.float64)
    sound = SOUND.astype(np.float64)
    scale = (mixed @ sound) / (sound @ sound)  # quieter where the sum would not fit
    added = mixed / scale - sound
    assert 10 * np.log10(np.square(sound).mean() / np.square(added).mean()) == pytest.approx(snr, abs=0.5)


def test_noise_on_a_loud_sound_keeps_the_ratio_instead_of_clipping():
    loud = np.where(np.arange(4000) % 50 < 25, 32000, -32000).astype(np.int16)
    mixed = noise(loud, 0.0, rng())
    assert np.abs(mixed.astype(int)).max() <= 32767
    assert (np.abs(mixed.astype(int)) == 32767).sum() <= 2


def test_silence_stays_silent_under_noise():
    assert not noise(np.zeros(100, np.int16), 0.0, rng()).any()


def test_muting_silences_one_run_of_the_share():
    muted = mute(np.full(1000, 7, np.int16), 0.25, rng())
    silent = np.flatnonzero(muted == 0)
    assert len(silent) == 250
    assert silent[-1] - silent[0] == 249


@pytest.fixture
def batch():
    clips = 3
    return {
        "clip_id": np.array([f"clip {number}" for number in range(clips)], dtype=object),
        "frames": np.random.default_rng(2).integers(0, 256, (clips, 8, 4, 4, 3), dtype=np.uint8),
        "audio": np.random.default_rng(3).integers(-999, 999, (clips, 400 + 160 * 9), dtype=np.int16),
        "audio_columns": np.array([10, 4, 0]),
    }


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_the_damage_of_a_clip_depends_on_its_id_and_the_seed_and_not_on_its_batch(batch, name):
    corruption = CORRUPTIONS[name]
    column, level = ("frames" if corruption.medium == "video" else "audio"), corruption.levels[-2]
    damaged = corrupt(batch, corruption, level, seed=5)
    alone = corrupt({key: value[1:2] for key, value in batch.items()}, corruption, level, seed=5)
    np.testing.assert_array_equal(alone[column][0], damaged[column][1])
    assert not np.array_equal(damaged[column], batch[column])
    others = {key for key in batch if key != column}
    assert all(damaged[key] is batch[key] for key in others)


def test_another_seed_damages_otherwise(batch):
    first, second = (corrupt(batch, CORRUPTIONS["shuffle"], 1.0, seed=seed)["frames"] for seed in (0, 1))
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("name", ["blank", "freeze"])
def test_more_of_the_same_damage_contains_the_lesser(name):
    key = (0, 0, "clip", name)
    changed = [
        (CORRUPTIONS[name].damage(FRAMES, level, rng_for(*key)) != FRAMES).any(axis=(1, 2, 3))
        for level in CORRUPTIONS[name].levels
    ]
    for weaker, stronger in itertools.pairwise(changed):
        assert (stronger >= weaker).all()


@pytest.mark.parametrize("name", ["noise", "mute"])
def test_sound_is_damaged_where_there_is_some_and_padding_stays(batch, name):
    damaged = corrupt(batch, CORRUPTIONS[name], CORRUPTIONS[name].levels[-1], seed=0)["audio"]
    end = 3 * 160 + 400
    assert (damaged[1, :end] != batch["audio"][1, :end]).any()
    np.testing.assert_array_equal(damaged[1, end:], batch["audio"][1, end:])
    np.testing.assert_array_equal(damaged[2], batch["audio"][2])
