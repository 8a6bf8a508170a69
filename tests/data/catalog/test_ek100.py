"""EPIC-KITCHENS-100's official files: what is read from them, and what is said when they are wrong."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cast_ray.data.catalog.ek100 import Ek100Subsets, read_ek100, read_ek100_subsets
from cast_ray.data.manifest import TRAIN, VALIDATION
from cast_ray.errors import UserError
from cast_ray.labels import NOUN, VERB

HEADER = (
    "narration_id,participant_id,video_id,narration_timestamp,start_timestamp,stop_timestamp,start_frame,stop_frame,"
    "narration,verb,verb_class,noun,noun_class,all_nouns,all_noun_classes\n"
)
TRAIN_ROWS = (
    "P01_01_0,P01,P01_01,00:00:01.089,00:00:00.14,00:00:03.37,8,202,open door,open,1,door,0,['door'],[0]\n"
    "P01_01_1,P01,P01_01,00:00:02.629,00:00:04.37,00:00:06.17,262,370,turn on light,turn-on,2,light,1,['light'],[1]\n"
    "P22_107_10,P22,P22_107,00:01:00.1,00:01:00.37,00:01:02.17,3600,3730,take knife and fork,take,0,"
    "knife,2,\"['knife', 'fork']\",\"[2, 3]\"\n"
)
VALIDATION_ROWS = "P01_11_0,P01,P01_11,00:00:00.56,00:00:00.00,00:00:01.89,1,113,take fork,take,0,fork,3,['fork'],[3]\n"
VERBS = (
    "id,key,instances,category\n0,take,\"['take', 'grab']\",retrieve\n1,open,['open'],access\n"
    "2,turn-on,['turn-on'],access\n"
)
NOUNS = (
    "id,key,instances,category\n0,door,['door'],appliances\n1,light,['light'],appliances\n"
    "2,knife,['knife'],cutlery\n3,fork,['fork'],cutlery\n"
)
FILES = {
    "EPIC_100_train.csv": HEADER + TRAIN_ROWS,
    "EPIC_100_validation.csv": HEADER + VALIDATION_ROWS,
    "EPIC_100_verb_classes.csv": VERBS,
    "EPIC_100_noun_classes.csv": NOUNS,
}
IDS = ("P01_01_0", "P01_01_1", "P22_107_10", "P01_11_0")


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    (tmp_path / "annotations").mkdir()
    for name, text in FILES.items():
        write(tmp_path, name, text)
    (tmp_path / "videos").mkdir()
    for narration_id in IDS:
        (tmp_path / "videos" / f"{narration_id}.mp4").touch()
    return tmp_path


def write(folder: Path, name: str, text: str) -> None:
    (folder / "annotations" / name).write_text(text)


def read(folder: Path):
    return read_ek100(folder / "videos", folder / "annotations")


def refusal(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        read(folder)
    return str(caught.value)


def test_segments_become_clips_with_verb_and_noun(dataset):
    manifest = read(dataset)
    assert manifest.label_map.names == {VERB: ("take", "open", "turn-on"), NOUN: ("door", "light", "knife", "fork")}
    found = {clip.clip_id: (clip.split, clip.labels) for clip in manifest.clips}
    assert found == {
        "P01_01_0": (TRAIN, (1, 0)),
        "P01_01_1": (TRAIN, (2, 1)),
        "P22_107_10": (TRAIN, (0, 2)),
        "P01_11_0": (VALIDATION, (0, 3)),
    }


def test_cut_videos_are_whole_clips(dataset):
    """The timestamps of the annotations belong to the uncut recording and must not be applied once more."""
    clip = read(dataset).clips[1]
    assert clip.uri == str(dataset / "videos" / "P01_01_1.mp4")
    assert (clip.start_s, clip.stop_s) == (None, None)


def test_classes_may_come_in_any_order(dataset):
    header, *rows = VERBS.splitlines(keepends=True)
    write(dataset, "EPIC_100_verb_classes.csv", header + "".join(reversed(rows)))
    assert read(dataset).label_map.names[VERB] == ("take", "open", "turn-on")


@pytest.mark.parametrize("missing", ["videos", "annotations"])
def test_a_missing_folder_is_named(dataset, missing):
    shutil.rmtree(dataset / missing)
    assert f"'{dataset / missing}' does not exist" in refusal(dataset)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_annotation_file_is_named(dataset, name):
    (dataset / "annotations" / name).unlink()
    assert f"has no {name};" in refusal(dataset)


@pytest.mark.parametrize("column", ["narration_id", "verb_class", "noun_class"])
def test_a_missing_column_is_named(dataset, column):
    write(dataset, "EPIC_100_train.csv", FILES["EPIC_100_train.csv"].replace(column, "other"))
    assert f"EPIC_100_train.csv' has no column ['{column}']" in refusal(dataset)


@pytest.mark.parametrize("row", ["P01_01_5,P01\n", TRAIN_ROWS.splitlines()[0] + ",more\n"])
def test_a_row_of_another_length_is_located(dataset, row):
    write(dataset, "EPIC_100_train.csv", HEADER + TRAIN_ROWS + row)
    assert "EPIC_100_train.csv', line 5: the row does not have as many fields" in refusal(dataset)


def test_a_quote_that_never_ends_is_refused(dataset):
    write(dataset, "EPIC_100_train.csv", HEADER + TRAIN_ROWS + '"P01_01_5')
    assert "EPIC_100_train.csv' is not a valid CSV file" in refusal(dataset)


def test_a_file_that_is_no_text_is_refused(dataset):
    (dataset / "annotations" / "EPIC_100_train.csv").write_bytes(HEADER.encode() + b"\xff\xfe\x00")
    assert "EPIC_100_train.csv' is not a valid CSV file" in refusal(dataset)


def test_a_class_that_is_no_number_is_located(dataset):
    write(dataset, "EPIC_100_train.csv", HEADER + TRAIN_ROWS.replace("open,1,", "open,one,"))
    assert "EPIC_100_train.csv', line 2: verb_class is 'one'" in refusal(dataset)


@pytest.mark.parametrize(("old", "new", "field"), [("open,1,", "open,3,", VERB), ("door,0,", "door,-1,", NOUN)])
def test_a_class_outside_the_label_map_is_located(dataset, old, new, field):
    write(dataset, "EPIC_100_train.csv", HEADER + TRAIN_ROWS.replace(old, new))
    message = refusal(dataset)
    assert "EPIC_100_train.csv', line 2: clip 'P01_01_0' has" in message
    assert f"{field} index" in message


@pytest.mark.parametrize("rows", ["0,take,x,y\n2,open,x,y\n", "0,take,x,y\n0,open,x,y\n"])
def test_class_indices_must_be_consecutive(dataset, rows):
    write(dataset, "EPIC_100_verb_classes.csv", "id,key,instances,category\n" + rows)
    assert "EPIC_100_verb_classes.csv' has 2 classes, whose indices must be 0 to 1" in refusal(dataset)


@pytest.mark.parametrize("split", [TRAIN, VALIDATION])
def test_an_empty_split_is_refused(dataset, split):
    write(dataset, f"EPIC_100_{split}.csv", HEADER)
    assert f"EPIC_100_{split}.csv' has no clips for the split" in refusal(dataset)


def test_missing_videos_are_counted_and_named(dataset):
    (dataset / "videos" / "P01_01_1.mp4").unlink()
    message = refusal(dataset)
    assert "names 1 clips of 3 that have no video file" in message
    assert ": P01_01_1; add" in message


def test_only_the_parts_between_the_timestamps_are_clips_of_whole_recordings(dataset):
    shutil.rmtree(dataset / "videos")
    (dataset / "videos" / "P01").mkdir(parents=True)
    (dataset / "videos" / "P22" / "videos").mkdir(parents=True)
    for file in ("P01/P01_01.MP4", "P01/P01_11.MP4", "P22/videos/P22_107.MP4"):
        (dataset / "videos" / file).touch()
    found = {clip.clip_id: (clip.uri, clip.start_s, clip.stop_s) for clip in read(dataset).clips}
    assert found == {
        "P01_01_0": (str(dataset / "videos/P01/P01_01.MP4"), 0.14, 3.37),
        "P01_01_1": (str(dataset / "videos/P01/P01_01.MP4"), 4.37, 6.17),
        "P22_107_10": (str(dataset / "videos/P22/videos/P22_107.MP4"), 60.37, 62.17),
        "P01_11_0": (str(dataset / "videos/P01/P01_11.MP4"), 0.0, 1.89),
    }


def test_one_cut_video_means_that_all_are_cut(dataset):
    """Otherwise a lost file would bring the whole recording in, with another meaning of its clip."""
    (dataset / "videos" / "P01_01_1.mp4").unlink()
    (dataset / "videos" / "P01_01.MP4").touch()
    assert "names 1 clips of 3 that have no video file" in refusal(dataset)


def test_unseen_participants_and_tail_classes_are_read(tmp_path):
    (tmp_path / "EPIC_100_unseen_participant_ids_validation.csv").write_text("participant_id\nP18\nP32\n")
    (tmp_path / "EPIC_100_tail_verbs.csv").write_text("verb\n10\n12\n")
    (tmp_path / "EPIC_100_tail_nouns.csv").write_text("noun\n56\n")
    assert read_ek100_subsets(tmp_path) == Ek100Subsets(
        unseen_participants=frozenset({"P18", "P32"}), tail_verbs=frozenset({10, 12}), tail_nouns=frozenset({56})
    )
    (tmp_path / "EPIC_100_tail_nouns.csv").write_text("noun\nfork\n")
    with pytest.raises(UserError, match=r"EPIC_100_tail_nouns.csv', line 2: noun is 'fork'"):
        read_ek100_subsets(tmp_path)
