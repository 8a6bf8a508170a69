"""The plain layout for a user's own clips: what is read from it, and what is said when it is wrong."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from cast_ray.data.catalog import read_table
from cast_ray.data.manifest import TRAIN, VALIDATION, Clip
from cast_ray.errors import UserError
from cast_ray.labels import NOUN, VERB

TRAIN_CSV = """clip,verb,noun,start_s,stop_s
kitchen/0001.mp4,take,cup,,
kitchen/0002.mp4,put,cup,,
long.webm,take,salt,2.5,4
long.webm,put,salt,4,
"""
VALIDATION_CSV = """clip,noun,verb
kitchen/0003.mp4,salt,take
"""


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    (tmp_path / "videos" / "kitchen").mkdir(parents=True)
    (tmp_path / "tables").mkdir()
    for name in ("kitchen/0001.mp4", "kitchen/0002.mp4", "kitchen/0003.mp4", "long.webm"):
        (tmp_path / "videos" / name).touch()
    write(tmp_path, TRAIN_CSV)
    write(tmp_path, VALIDATION_CSV, VALIDATION)
    return tmp_path


def write(folder: Path, text: str, split: str = TRAIN) -> None:
    (folder / "tables" / f"{split}.csv").write_text(text)


def read(folder: Path):
    return read_table(str(folder / "videos"), str(folder / "tables"))


def refusal(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        read(folder)
    return str(caught.value)


def test_every_other_column_is_a_label_field_with_its_names_in_alphabetical_order(dataset):
    manifest = read(dataset)
    assert manifest.label_map.names == {VERB: ("put", "take"), NOUN: ("cup", "salt")}
    videos = dataset / "videos"
    assert manifest.clips == (
        Clip(clip_id="kitchen/0001.mp4", uri=f"{videos}/kitchen/0001.mp4", labels=(1, 0), split=TRAIN),
        Clip(clip_id="kitchen/0002.mp4", uri=f"{videos}/kitchen/0002.mp4", labels=(0, 0), split=TRAIN),
        Clip(clip_id="long.webm 2.5-4", uri=f"{videos}/long.webm", labels=(1, 1), split=TRAIN, start_s=2.5, stop_s=4),
        Clip(clip_id="long.webm 4-", uri=f"{videos}/long.webm", labels=(0, 1), split=TRAIN, start_s=4),
        Clip(clip_id="kitchen/0003.mp4", uri=f"{videos}/kitchen/0003.mp4", labels=(1, 1), split=VALIDATION),
    )


def test_one_label_is_enough(dataset):
    write(dataset, "clip,label\nkitchen/0001.mp4,cough\n")
    write(dataset, "label,clip\ncough,kitchen/0003.mp4\n", VALIDATION)
    assert read(dataset).label_map.names == {"label": ("cough",)}


def test_uris_are_absolute_even_if_the_folder_was_not(dataset, monkeypatch):
    monkeypatch.chdir(dataset)
    assert all(os.path.isabs(clip.uri) for clip in read_table("videos", "tables").clips)


def test_folders_are_listed_once_however_many_clips_there_are(dataset, monkeypatch):
    calls = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: calls.append(str(path)) or scandir(path))
    read(dataset)
    assert sorted(calls) == [f"{dataset}/videos/{name}" for name in (".", "kitchen")]


@pytest.mark.parametrize("missing", ["videos", "tables"])
def test_a_missing_folder_is_named(dataset, missing):
    shutil.rmtree(dataset / missing)
    assert f"'{dataset / missing}' does not exist" in refusal(dataset)


@pytest.mark.parametrize("split", [TRAIN, VALIDATION])
def test_a_missing_or_empty_table_is_named(dataset, split):
    write(dataset, "clip,verb,noun\n", split)
    assert f"{split}.csv' has no clips" in refusal(dataset)
    (dataset / "tables" / f"{split}.csv").unlink()
    assert f"has no {split}.csv" in refusal(dataset)


def test_missing_files_are_counted_and_named(dataset):
    write(dataset, TRAIN_CSV + "kitchen/9.mp4,take,cup,,\nattic/8.mp4,put,cup,,\n")
    message = refusal(dataset)
    assert f"train.csv' names 2 clips of 6 that have no video file in '{dataset}/videos': " in message
    assert "kitchen/9.mp4, attic/8.mp4; add the files, remove the clips" in message


def test_what_is_no_file_is_missing(dataset):
    (dataset / "videos" / "folder.mp4").mkdir()
    (dataset / "videos" / "dead.mp4").symlink_to("gone.mp4")
    write(dataset, TRAIN_CSV + "folder.mp4,take,cup,,\ndead.mp4,put,cup,,\n")
    assert "names 2 clips of 6 that have no video file in" in refusal(dataset)


def test_clips_that_cannot_be_used_are_left_out_if_the_caller_takes_the_report(dataset):
    expected = read(dataset)
    write(dataset, TRAIN_CSV + "kitchen/9.mp4,take,cup,,\nlong.webm,put,salt,5,5\nlong.webm,put,salt,2.50,4.0\n")
    reports: list[str] = []
    manifest = read_table(dataset / "videos", dataset / "tables", on_skip=reports.append)
    assert manifest == expected
    assert [report.split(";")[0].split("with ")[-1].split("have ")[-1] for report in reports] == [
        "a segment that does not end after it begins: long.webm 5-5 (line 7)",
        f"an id that an earlier clip has: long.webm 2.5-4 (line 8, first in '{dataset}/tables/train.csv', line 4)",
        f"no video file in '{dataset}/videos': kitchen/9.mp4",
    ]


@pytest.mark.parametrize(
    "name", ["../secret.mp4", "kitchen/../../secret.mp4", "/etc/passwd", "", "kitchen/../kitchen/0001.mp4"]
)
def test_paths_that_leave_the_folder_are_refused(dataset, name):
    (dataset / "secret.mp4").touch()
    write(dataset, TRAIN_CSV + f"{name},take,cup,,\n")
    assert f"train.csv', line 6: the video is called {name!r}; give a path below the video folder" in refusal(dataset)


def test_a_class_without_training_clips_is_named(dataset):
    write(dataset, VALIDATION_CSV + "kitchen/0001.mp4,pepper,take\n", VALIDATION)
    assert "validation.csv', line 3: noun 'pepper' of clip 'kitchen/0001.mp4' does not occur among" in refusal(dataset)


def test_an_empty_label_is_refused(dataset):
    write(dataset, TRAIN_CSV + "kitchen/0003.mp4,,cup,,\n")
    assert "train.csv', line 6: verb is empty" in refusal(dataset)


@pytest.mark.parametrize(
    ("again", "said"),
    [
        ("kitchen/0001.mp4,put,cup,,", "kitchen/0001.mp4 (line 6, first in '{}', line 2)"),
        ("./kitchen//0001.mp4,put,cup,,", "kitchen/0001.mp4 (line 6, first in '{}', line 2)"),
        ("kitchen/0001.mp4,put,cup,0,", "kitchen/0001.mp4 (line 6, first in '{}', line 2)"),
        ("long.webm,put,salt,00:00:02.500,4.0", "long.webm 2.5-4 (line 6, first in '{}', line 4)"),
        ("long.webm,put,salt,4.0,", "long.webm 4- (line 6, first in '{}', line 5)"),
    ],
)
def test_a_clip_that_occurs_twice_is_refused_however_it_is_written(dataset, again, said):
    write(dataset, TRAIN_CSV + again + "\n")
    assert said.format(dataset / "tables" / "train.csv") in refusal(dataset)


def test_the_beginning_is_second_0(dataset):
    write(dataset, TRAIN_CSV + "long.webm,put,salt,,2\nlong.webm,put,salt,0.0,2.0\n")
    assert "long.webm 0-2 (line 7, first in" in refusal(dataset)


def test_seconds_of_hours_are_told_apart(dataset):
    write(dataset, TRAIN_CSV + "long.webm,put,salt,01:00:00.001,3700\nlong.webm,put,salt,01:00:00.002,3700\n")
    assert [clip.clip_id for clip in read(dataset).clips[4:6]] == ["long.webm 3600.001-3700", "long.webm 3600.002-3700"]


def test_a_column_that_is_there_twice_is_refused(dataset):
    write(dataset, "clip,verb,noun,verb\nlong.webm,take,cup,put\n")
    assert "train.csv' has more than one column ['verb']" in refusal(dataset)


def test_a_clip_in_both_splits_is_refused(dataset):
    write(dataset, VALIDATION_CSV + "kitchen/0001.mp4,cup,take\n", VALIDATION)
    first = f"first in '{dataset}/tables/train.csv', line 2"
    assert f"an id that an earlier clip has: kitchen/0001.mp4 (line 3, {first})" in refusal(dataset)


def test_the_splits_must_have_the_same_fields(dataset):
    write(dataset, "clip,verb\nkitchen/0003.mp4,take\n", VALIDATION)
    message = refusal(dataset)
    assert "has the label columns ['verb', 'noun'], " in message
    assert "validation.csv' has ['verb']" in message


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("file,verb\na.mp4,take\n", "has no column ['clip']"),
        ("clip,start_s\nlong.webm,1\n", "has no label column beside 'clip'"),
        ("clip,Verb Class,noun\nlong.webm,take,cup\n", "['Verb Class', 'noun']"),
        ("clip,verb,noun\nlong.webm,take\n", "the row does not have as many fields as the header"),
    ],
)
def test_tables_of_another_form_are_refused(dataset, table, said):
    write(dataset, table)
    assert said in refusal(dataset)


def test_field_names_that_cannot_be_used_are_refused(dataset):
    write(dataset, "clip,Verb Class\nlong.webm,take\n")
    write(dataset, "clip,Verb Class\nkitchen/0003.mp4,take\n", VALIDATION)
    assert "a label field is called 'Verb Class'" in refusal(dataset)


@pytest.mark.parametrize(
    ("times", "said"),
    [
        ("two,4", "line 6: start_s is 'two'; it must be"),
        ("-1,4", "start_s is '-1'"),
        ("nan,4", "start_s is 'nan'"),
        ("1,inf", "stop_s is 'inf'"),
        ("4,4", "a segment that does not end after it begins: long.webm 4-4 (line 6)"),
        ("5,4", "a segment that does not end after it begins: long.webm 5-4 (line 6)"),
        (",0", "a segment that does not end after it begins: long.webm 0-0 (line 6)"),
    ],
)
def test_times_that_make_no_sense_are_refused(dataset, times, said):
    write(dataset, TRAIN_CSV + f"long.webm,take,salt,{times}\n")
    assert said in refusal(dataset)
