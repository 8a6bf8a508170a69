"""Shown clips are of every kind of agreement and of many classes."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from cast_ray.report.examples import choose_examples, pattern_name

NAMES = {"verb": tuple(f"verb {index}" for index in range(8)), "noun": tuple(f"noun {index}" for index in range(6))}


def test_of_a_run_half_are_wrong_and_half_right_and_spread_over_the_classes(make_runs):
    (run,) = make_runs(NAMES, clips=400, skills=(1.5,))
    chosen = [run.clip_ids.index(clip_id) for clip_id in choose_examples([run], count=12)]
    assert run.right()[chosen].tolist() == [False] * 6 + [True] * 6
    for group in (chosen[:6], chosen[6:]):
        assert len(set(run.true("verb")[group])) >= 5


@pytest.mark.parametrize(("skill", "clips", "expected"), [(50, 40, 12), (-50, 40, 12), (1.5, 5, 5)])
def test_places_that_a_kind_cannot_fill_go_to_the_others(make_runs, skill, clips, expected):
    (run,) = make_runs({"label": tuple("abcd")}, clips=clips, skills=(skill,))
    chosen = choose_examples([run], count=12)
    assert len(set(chosen)) == len(chosen) == expected


def test_of_several_runs_every_kind_of_agreement_is_there(make_runs):
    runs = make_runs({"label": tuple("abcd")}, clips=400, skills=(1.0, 1.0))
    chosen = [runs[0].clip_ids.index(clip_id) for clip_id in choose_examples(runs, count=20)]
    patterns = Counter(zip(*(run.right()[chosen].tolist() for run in runs), strict=True))
    assert set(patterns.values()) == {5}
    assert len(patterns) == 4


def test_only_the_given_clips_are_chosen(make_runs):
    runs = make_runs({"label": tuple("abcd")}, clips=50, skills=(1.0, 1.0))
    among = {"clip-3", "clip-4", "clip-40"}
    assert set(choose_examples(runs, count=20, among=among)) == among
    assert np.isin(choose_examples(runs, count=2, among=among), list(among)).all()


def test_who_is_right_in_words():
    assert pattern_name([True], ["A"]) == "right"
    assert pattern_name([False], ["A"]) == "wrong"
    assert pattern_name([True, True], ["A", "B"]) == "both are right"
    assert pattern_name([False, True], ["A", "B"]) == "only B"
    assert pattern_name([False, False, False], ["A", "B", "C"]) == "none is right"
    assert pattern_name([True, False, True], ["A", "B", "C"]) == "only A and C"
