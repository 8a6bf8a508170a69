"""Super-categories come from the user's file, the official one, or the names."""

from __future__ import annotations

import json

import pytest

from cast_ray.errors import UserError
from cast_ray.labels import LabelMap
from cast_ray.report.groups import first_word_groups, groups_of

LABELS = LabelMap({"verb": ("take", "put"), "noun": ("knife", "onion", "carrot")})
NOUNS = {"knife": "cutlery", "onion": "vegetables", "carrot": "vegetables"}


def write(folder, content) -> str:
    (folder / "groups.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return str(folder / "groups.json")


@pytest.mark.parametrize("content", [NOUNS, {"noun": NOUNS}])
def test_a_json_file_names_the_field_or_is_recognised_by_its_classes(content, tmp_path):
    assert groups_of(LABELS, [write(tmp_path, content)]) == {"noun": ("cutlery", "vegetables", "vegetables")}


def test_classes_that_the_file_leaves_out_are_other(tmp_path):
    assert groups_of(LABELS, [write(tmp_path, {"knife": "cutlery"})]) == {"noun": ("cutlery", "other", "other")}


def test_the_official_file_of_epic_kitchens_is_read_as_it_is(tmp_path):
    file = tmp_path / "EPIC_100_noun_classes.csv"
    rows = [f"{index},{name},\"['{name}']\",{group}" for index, (name, group) in enumerate(NOUNS.items())]
    file.write_text("\n".join(["id,key,instances,category", *rows]))
    assert groups_of(LABELS, [str(file)]) == {"noun": tuple(NOUNS.values())}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({**NOUNS, "kinfe": "cutlery"}, "1 classes that are no noun of the runs: .'kinfe'."),
        ({"spoon": "cutlery"}, "names no class of the runs"),
        ({"noun": NOUNS, "adverb": {}}, "has groups for .'adverb'."),
        ({"knife": 3}, "no super-category as text for .'knife'."),
        ([1], "holds '.1.'"),
        ("{", "cannot read the groups"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_with_what_is_wrong(content, message, tmp_path):
    with pytest.raises(UserError, match=message):
        groups_of(LABELS, [write(tmp_path, content)])


def test_names_like_those_of_ssv2_are_grouped_by_their_verb_and_others_are_not():
    ssv2 = [f"{verb} something {way}" for verb in ("Pushing", "Pulling") for way in ("up", "down", "left", "right")]
    assert first_word_groups(ssv2) == ("Pushing",) * 4 + ("Pulling",) * 4
    kinetics = ["abseiling", "air drumming", "playing guitar", "playing cards", "riding a bike", "zumba"]
    assert first_word_groups(kinetics) is None
    assert groups_of(LABELS) == {}
