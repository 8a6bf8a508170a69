"""The label map: its order, its identity, and what it refuses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cast_ray.errors import UserError
from cast_ray.labels import LABEL, NOUN, VERB, LabelMap

NAMES = st.lists(st.text(min_size=1, max_size=8).filter(str.strip), min_size=1, max_size=6, unique=True).map(tuple)
MAPS = st.one_of(
    st.builds(lambda names: LabelMap({LABEL: names}), NAMES),
    st.builds(lambda verbs, nouns: LabelMap({VERB: verbs, NOUN: nouns}), NAMES, NAMES),
    st.builds(lambda a, b, c: LabelMap({VERB: a, NOUN: b, "sound": c}), NAMES, NAMES, NAMES),
)
KITCHEN = LabelMap({VERB: ("take", "put"), NOUN: ("cup", "pan", "salt")})


@given(MAPS)
def test_json_gives_the_same_map_back(label_map):
    again = LabelMap.from_json(label_map.to_json())
    assert again == label_map
    assert again.fields == label_map.fields
    assert again.fingerprint == label_map.fingerprint


@given(MAPS, MAPS)
def test_two_maps_have_one_fingerprint_exactly_if_they_are_equal(one, other):
    assert (one.fingerprint == other.fingerprint) == (one == other)


def test_the_fingerprint_knows_the_order_of_the_names_and_the_field_they_belong_to():
    maps = [
        KITCHEN,
        LabelMap({VERB: ("put", "take"), NOUN: ("cup", "pan", "salt")}),
        LabelMap({VERB: ("cup", "pan", "salt"), NOUN: ("take", "put")}),
        LabelMap({VERB: ("take", "put", "cup"), NOUN: ("pan", "salt")}),
        LabelMap({LABEL: ("take", "put", "cup", "pan", "salt")}),
        LabelMap({NOUN: ("cup", "pan", "salt"), VERB: ("take", "put")}),
        LabelMap({"sound": ("take", "put"), NOUN: ("cup", "pan", "salt")}),
    ]
    assert len({label_map.fingerprint for label_map in maps}) == len(maps)
    assert all(len(label_map.fingerprint) == 16 for label_map in maps)


def test_fields_and_class_counts_are_in_the_order_of_storage():
    assert KITCHEN.fields == (VERB, NOUN)
    assert list(KITCHEN.num_classes.items()) == [(VERB, 2), (NOUN, 3)]


def test_fields_may_be_any_in_any_order():
    label_map = LabelMap({NOUN: ("cup",), "sound": ("tone", "clicks"), "hand_2": ("left", "right", "both")})
    assert label_map.fields == (NOUN, "sound", "hand_2")
    label_map.check((0, 1, 2), where="clip 'a'")
    with pytest.raises(UserError, match="sound index 2"):
        label_map.check((0, 2, 2), where="clip 'a'")


@pytest.mark.parametrize("labels", [(0, 0), (1, 2)])
def test_labels_inside_the_map_pass(labels):
    KITCHEN.check(labels, where="clip 'a'")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ((0, 3), r"clip 'a' has noun index 3, but the label map has 3 classes \(0 to 2\)"),
        ((-1, 0), r"clip 'a' has verb index -1, but the label map has 2 classes \(0 to 1\)"),
        ((0,), r"clip 'a' has 1 labels, the label map has fields \['verb', 'noun'\]"),
        ((0, 0, 0), "clip 'a' has 3 labels"),
    ],
)
def test_labels_outside_the_map_are_refused_with_clip_and_range(labels, message):
    with pytest.raises(UserError, match=message):
        KITCHEN.check(labels, where="clip 'a'")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({}, "the label map has no fields; give at least one"),
        ({"": ("take",)}, "a label field is called ''"),
        ({"Verb class": ("take",)}, "a label field is called 'Verb class'; use lower-case letters"),
        ({"2nd": ("take",)}, "a label field is called '2nd'"),
        ({"action": ("take cup",)}, "a label field is called 'action'.* not 'action'"),
        ({LABEL: ()}, "no classes for 'label'"),
        ({VERB: ("take", " "), NOUN: ("cup",)}, "class 1 of 'verb' has an empty name; give every class a name"),
        ({VERB: ("take",), NOUN: ("cup", "pan", "cup")}, r"class names of 'noun' occur twice: \['cup'\]"),
    ],
)
def test_maps_that_cannot_be_are_refused(names, message):
    with pytest.raises(UserError, match=message):
        LabelMap(names)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no json", r"in 'x' is not a JSON object of class name lists: 'no json'; write it like \{"),
        ('["up", "down"]', "in 'x' is not a JSON object of class name lists"),
        ('{"label": "updown"}', "in 'x' is not a JSON object of class name lists"),
        ('{"label": {"up": 0, "down": 1}}', "in 'x' is not a JSON object of class name lists"),
        ('{"label": ["up", 7]}', "in 'x' has 7 as class 1 of 'label'; class names are strings"),
        ('{"verb": ["cut"], "noun": [null, "cup"]}', "in 'x' has null as class 0 of 'noun'"),
        ('{"label": ["up", ["down"]]}', r'in \'x\' has \["down"\] as class 1'),
        ('{"label": ["up", true]}', "in 'x' has true as class 1"),
        ('{"label": ["up", ""]}', "class 1 of 'label' has an empty name"),
        ('{"label": ["up", "down", "up"]}', r"class names of 'label' occur twice: \['up'\]"),
        ("{}", "the label map has no fields"),
    ],
)
def test_text_that_is_no_map_is_refused_with_the_entry(text, message):
    with pytest.raises(UserError, match=message):
        LabelMap.from_json(text, where="in 'x'")
