"""The CAST authors' CSV files: what is theirs alone; see test_readers.py for the rest."""

from __future__ import annotations

import pytest

from cast_ray.data.catalog import read_cast_csv
from cast_ray.errors import UserError
from cast_ray.labels import LABEL, NOUN, VERB, LabelMap


def read(folder, train: str, validation: str, **settings):
    (folder / "videos" / "sub").mkdir(parents=True)
    for name in ("a", "b", "sub/c"):
        (folder / "videos" / f"{name}.mp4").touch()
    (folder / "train.csv").write_text(train)
    (folder / "val.csv").write_text(validation)
    return read_cast_csv(folder / "videos", folder, **settings)


def test_indices_are_the_names_up_to_the_largest_of_both_files(tmp_path):
    assert read(tmp_path, "a,0,1\n", "b,2,0\n").label_map.names == {VERB: ("0", "1", "2"), NOUN: ("0", "1")}


def test_names_can_be_given(tmp_path):
    label_map = LabelMap({LABEL: ("run", "swim", "jump")})
    manifest = read(tmp_path, "a.mp4 0\nsub/c.mp4 1\n", "b.mp4 1\n", label_map=label_map)
    assert manifest.label_map == label_map
    assert [clip.clip_id for clip in manifest.clips] == ["a", "sub/c", "b"]


@pytest.mark.parametrize(
    ("train", "validation", "said"),
    [
        ("a.mp4 0\n", "b.mp4 3\n", r"val.csv', line 1: clip 'b' has label index 3, but the label map has 3 classes"),
        ("a.mp4 -1\n", "b.mp4 0\n", r"train.csv', line 1: clip 'a' has label index -1"),
        ("a,0,1\n", "b,0,1\n", r"fields \['label'\], but .*train.csv' has \['verb', 'noun'\]; give the label map"),
    ],
)
def test_labels_must_fit_the_names(tmp_path, train, validation, said):
    with pytest.raises(UserError, match=said):
        read(tmp_path, train, validation, label_map=LabelMap({LABEL: ("run", "swim", "jump")}))


@pytest.mark.parametrize(("train", "validation"), [("a,0,1\n", "b.mp4 1\n"), ("a,0,1\nb.mp4 1\n", "sub/c,0,1\n")])
def test_lines_of_both_kinds_are_refused(tmp_path, train, validation):
    with pytest.raises(UserError, match="are not of one kind"):
        read(tmp_path, train, validation)


@pytest.mark.parametrize("line", ["a.mp4", "a,1", "a,1,2,3", "a.mp4,1"])
def test_lines_of_no_kind_are_located(tmp_path, line):
    with pytest.raises(UserError, match=r"train.csv', line 2: it is '.*'; it must be '<id>,<verb>,<noun>' or"):
        read(tmp_path, f"b.mp4 0\n{line}\n", "sub/c.mp4 0\n")
