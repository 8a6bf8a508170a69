"""The embedded dataset under time reversal: a clip played backwards is a clip of the partner verb, pixel for pixel."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cast_ray.data.synthetic import NOUNS, VERBS
from cast_ray.data.synthetic.classes import partner
from cast_ray.data.synthetic.scene import draw_scene, render

CLIPS = {
    "seed": st.integers(0, 2**32 - 1),
    "verb": st.integers(0, len(VERBS) - 1),
    "noun": st.integers(0, len(NOUNS) - 1),
    "num_frames": st.integers(2, 9),
    "size": st.sampled_from([16, 28, 40]),
}


def scene(seed: int, **what: int):
    return draw_scene(np.random.default_rng(seed), **what)


def test_verbs_are_pairs():
    pairs = {frozenset((VERBS[verb], VERBS[partner(verb)])) for verb in range(len(VERBS))}
    assert {
        frozenset(pair) for pair in (("move-left", "move-right"), ("move-up", "move-down"), ("grow", "shrink"))
    } <= pairs
    assert all(len(pair) == 2 for pair in pairs)
    assert 2 * len(pairs) == len(VERBS)


@settings(max_examples=60, deadline=None)
@given(**CLIPS)
def test_the_same_draw_of_the_partner_verb_shows_the_frames_backwards(seed, verb, noun, num_frames, size):
    """Every clip has a mirror image in time that is exactly as likely, background and distractors included."""
    what = {"noun": noun, "num_frames": num_frames, "size": size}
    one, other = scene(seed, verb=verb, **what), scene(seed, verb=partner(verb), **what)
    assert (one.verb, other.verb) == (verb, partner(verb))
    np.testing.assert_array_equal(render(other), render(one)[::-1])


@settings(max_examples=30, deadline=None)
@given(**CLIPS)
def test_reversing_the_latent_reverses_the_frames(seed, verb, noun, num_frames, size):
    forward = scene(seed, verb=verb, noun=noun, num_frames=num_frames, size=size)
    backward = forward.reversed()
    assert (backward.verb, backward.noun) == (partner(verb), noun)
    np.testing.assert_array_equal(render(backward), render(forward)[::-1])
    np.testing.assert_array_equal(render(backward.reversed()), render(forward))


@pytest.mark.parametrize("verb", range(len(VERBS)))
def test_frames_are_not_their_own_reverse(verb):
    """Guards the tests above: on still or palindromic frames they would pass without proving anything."""
    frames = render(scene(1, verb=verb, noun=0, num_frames=8, size=32)).astype(int)
    assert np.abs(frames - frames[::-1]).mean() > 3


@pytest.mark.parametrize(
    ("verb", "axis", "sign"),
    [
        ("move-left", "x", -1),
        ("move-right", "x", 1),
        ("move-up", "y", -1),
        ("move-down", "y", 1),
        ("grow", "radius", 1),
        ("shrink", "radius", -1),
    ],
)
def test_a_verb_moves_its_axis_in_its_direction(verb, axis, sign):
    """Nearly all steps go the verb's way; one is the jump to the other end of the range."""
    for seed in range(20):
        motion = scene(seed, verb=VERBS.index(verb), noun=0, num_frames=16, size=16).motion
        steps = np.diff(getattr(motion, axis)) * sign
        assert (steps < -1e-12).sum() <= 1
        assert (steps > 1e-12).sum() >= 7
