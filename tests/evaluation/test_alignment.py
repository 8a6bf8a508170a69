"""What may be compared, and what a refusal says."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from cast_ray.errors import UserError
from cast_ray.evaluation.alignment import in_order_of, label_differences
from cast_ray.labels import LabelMap


def test_clips_are_brought_into_one_order(make_predictions, verb_noun_names):
    first = make_predictions(verb_noun_names, clips=9)
    order = np.array([3, 1, 4, 0, 5, 8, 2, 6, 7])
    other = dataclasses.replace(
        first,
        clip_ids=tuple(first.clip_ids[row] for row in order),
        labels=first.labels[order],
        probabilities={field: values[order] for field, values in first.probabilities.items()},
        num_views=np.arange(1, 10, dtype=np.int32),
    )
    aligned = in_order_of("a", first, "b", other)
    assert aligned.clip_ids == first.clip_ids
    np.testing.assert_array_equal(aligned.labels, first.labels)
    np.testing.assert_array_equal(aligned.num_views[order], other.num_views)
    for field, values in first.probabilities.items():
        np.testing.assert_array_equal(aligned.probabilities[field], values)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"verb": ("a", "b", "c"), "noun": ("x",)}, []),
        ({"label": ("a", "b", "c")}, ["the fields are ['label'] and ['verb', 'noun']"]),
        ({"noun": ("x",), "verb": ("a", "b", "c")}, ["the fields are ['noun', 'verb'] and ['verb', 'noun']"]),
        ({"verb": ("a", "b", "d"), "noun": ("x",)}, ["only one has verb ['d']", "only one has verb ['c']"]),
        ({"verb": ("a", "b"), "noun": ("x",)}, ["2 and 3 verb classes", "only one has verb ['c']"]),
        (
            {"verb": ("a", "c", "b"), "noun": ("x",)},
            ["2 verb classes are in another order, such as 1: 'c' and 'b'"],
        ),
    ],
)
def test_differing_entries_of_label_maps_are_named(other, said):
    assert label_differences(LabelMap({"verb": ("a", "b", "c"), "noun": ("x",)}), LabelMap(other)) == said


def test_other_label_maps_are_refused_with_their_differences(make_predictions):
    one, other = make_predictions({"label": ("a", "b")}, clips=3), make_predictions({"label": ("a", "c")}, clips=3)
    with pytest.raises(UserError, match=r"'two' and 'one' have different label maps: only one has label \['c'\]; only"):
        in_order_of("one", one, "two", other)
