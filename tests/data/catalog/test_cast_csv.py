"""The CAST authors' CSV files: what is theirs alone; see test_readers.py for the rest."""

from __future__ import annotations

import os

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


def place(folder, train: str, *files: str) -> list[str]:
    """Videos of two classes and lists of which `train` is one; the arguments for the reader."""
    for file in ("val/x.mp4", *files):
        (folder / "videos" / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / "videos" / file).touch()
    (folder / "train.csv").write_text(train.replace("VIDEOS", str(folder / "videos")))
    (folder / "val.csv").write_text("val/x.mp4 1\n")
    return [folder / "videos", folder]


def test_a_file_of_another_class_is_never_taken_for_a_missing_one(tmp_path):
    """Folders of classes number their files alike: the wrong one would be trained on under the wrong label."""
    places = place(tmp_path, "classA/0001.mp4 0\nclassB/0001.mp4 1\n", "classB/0001.mp4")
    with pytest.raises(UserError, match=r"names 1 clips of 2 that have no video file in .*videos': classA/0001; add"):
        read_cast_csv(*places)
    reports: list[str] = []
    manifest = read_cast_csv(*places, on_skip=reports.append)
    assert [(clip.clip_id, os.path.relpath(clip.uri, places[0]), clip.labels) for clip in manifest.clips] == [
        ("classB/0001", "classB/0001.mp4", (1,)),
        ("val/x", "val/x.mp4", (1,)),
    ]
    assert len(reports) == 1


@pytest.mark.parametrize(
    ("line", "file"),
    [
        ("classA/0001.mp4", "train/classA/0001.mp4"),
        ("a/b/c/d.mp4", "a/b/c/d.mp4"),
        ("VIDEOS/classA/0001.mp4", "classA/0001.mp4"),
        ("VIDEOS/a/b/c/d.mp4", "a/b/c/d.mp4"),
        ("/old/home/k400/classA/0001.mp4", "classA/0001.mp4"),
        ("/old/home/k400/a b/c/d/e.mp4", "a b/c/d/e.mp4"),
        ("/old/home/k400/0001.avi", "0001.mp4"),
    ],
)
def test_paths_are_relative_absolute_or_those_of_another_machine(tmp_path, line, file):
    places = place(tmp_path, f"{line} 0\n", file, "classB/0002.mp4")
    clip = read_cast_csv(*places).clips[0]
    assert clip.uri == str(tmp_path / "videos" / file)


@pytest.mark.parametrize("line", ["/old/k400/classA/0001.mp4", "/etc/passwd", "/old/classB/x/0001.mp4"])
def test_an_absolute_path_of_no_file_here_is_refused_or_left_out(tmp_path, line):
    places = place(tmp_path, f"{line} 0\nclassB/0001.mp4 1\n", "classB/0001.mp4")
    said = r"1 clips of 2 with an absolute path that ends like no file in the video folder .*\(line 1\)"
    with pytest.raises(UserError, match=said):
        read_cast_csv(*places)
    assert [clip.clip_id for clip in read_cast_csv(*places, on_skip=lambda _: None).clips] == ["classB/0001", "val/x"]


def test_an_absolute_path_of_a_missing_file_in_the_folder_is_missing(tmp_path):
    places = place(tmp_path, "VIDEOS/classA/0001.mp4 0\n", "classB/0001.mp4", "0001.mp4")
    with pytest.raises(UserError, match="names 1 clips of 1 that have no video file"):
        read_cast_csv(*places)


def test_two_absolute_paths_of_one_file_are_refused(tmp_path):
    places = place(tmp_path, "/old/classA/0001.mp4 0\n/old/classB/0001.mp4 1\n", "0001.mp4")
    with pytest.raises(UserError, match=r"line 2: clip .* has the video file .*0001.mp4', which .* line 1 has too"):
        read_cast_csv(*places)
