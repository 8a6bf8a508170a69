"""Sample clips are spread over splits and classes, depend on the seed alone, and obey the filters."""

from __future__ import annotations

from collections import Counter

import pytest

from cast_ray.data.inspection.samples import sample_clips
from cast_ray.errors import UserError
from cast_ray.labels import NOUN, VERB, LabelMap

NAMES = LabelMap({VERB: ("take", "put", "wash", "open the door"), NOUN: ("cup", "pan", "take")})


@pytest.fixture(scope="module")
def dataset(tmp_path_factory, stored, written):
    """100 clips of (take, cup), few of the others; the last label of each field only in one clip, or none."""
    labels = [(0, 0)] * 100 + [(1, 1)] * 4 + [(2, 1)] * 2 + [(1, 2)]
    clips = [stored(f"t{i}", label) for i, label in enumerate(labels)]
    clips += [stored(f"v{i}", (i % 3, i % 2), "validation") for i in range(5)]
    clips += [stored("bad", (2, 2), "validation", reason="file is empty")]
    return written(tmp_path_factory.mktemp("data"), clips, NAMES)


def test_splits_take_turns_and_rare_classes_come_before_frequent_ones_repeat(dataset):
    rows = sample_clips(dataset, 6).to_pylist()
    assert Counter(row["split"] for row in rows) == {"train": 3, "validation": 3}
    assert {row["labels"][0] for row in rows} == {0, 1, 2}
    assert max(Counter(row["labels"][0] for row in rows).values()) == 2


def test_they_come_in_the_order_of_splits_and_labels(dataset):
    rows = sample_clips(dataset, 9).to_pylist()
    keys = [(row["split"], row["labels"]) for row in rows]
    assert keys == sorted(keys)


def test_the_same_seed_shows_the_same_clips_and_another_shows_others(dataset):
    first, again, other = (sample_clips(dataset, 8, seed=seed)["clip_id"].to_pylist() for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert len(set(first)) == 8


def test_clips_that_cannot_be_used_come_only_where_others_are_too_few(dataset):
    assert "bad" not in sample_clips(dataset, 5, split="validation")["clip_id"].to_pylist()
    every = sample_clips(dataset, 50, split="validation")["clip_id"].to_pylist()
    assert sorted(every) == ["bad", "v0", "v1", "v2", "v3", "v4"]


def test_a_label_is_looked_for_in_every_field(dataset):
    rows = sample_clips(dataset, 50, label="take").to_pylist()
    assert all(row["labels"][0] == 0 or row["labels"][1] == 2 for row in rows)
    assert {"t106", "bad"} & {row["clip_id"] for row in rows} == {"t106"}
    alone = sample_clips(dataset, 50, label="take", split="validation")
    assert sorted(alone["clip_id"].to_pylist()) == ["bad", "v0", "v3"]


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ({"split": "test"}, r"--split is 'test'; the dataset has the splits \['train', 'validation'\]"),
        ({"label": "door"}, "which no class of the dataset is called; did you mean 'open the door'"),
        ({"label": "washh"}, "did you mean 'wash'"),
        ({"label": "?"}, "--all-classes shows all"),
        ({"label": "open the door"}, "a class without clips in the dataset"),
        ({"label": "open the door", "split": "train"}, "a class without clips in split 'train'"),
    ],
)
def test_a_choice_of_nothing_is_refused(dataset, filters, message):
    with pytest.raises(UserError, match=message):
        sample_clips(dataset, 4, **filters)
