"""One folder per class: what is read from it, and what is said when it is wrong."""

from __future__ import annotations

import os
import shutil

import pytest

from cast_ray.data.catalog import read_folders
from cast_ray.data.manifest import TRAIN, VALIDATION
from cast_ray.errors import UserError
from cast_ray.labels import LABEL

FILES = ("train/fall/1.mp4", "train/fall/2.MOV", "train/lie down/1.webm", "validation/lie down/9.mp4")


@pytest.fixture
def videos(tmp_path):
    for file in FILES:
        touch(tmp_path, file)
    return tmp_path


def touch(folder, file: str) -> None:
    (folder / file).parent.mkdir(parents=True, exist_ok=True)
    (folder / file).touch()


def test_folders_are_splits_and_classes(videos):
    """A description beside the splits and hidden files are nobody's clips."""
    for file in ("README.md", "train/.DS_Store", "train/fall/._1.mp4", ".git/x/y.mp4"):
        touch(videos, file)
    manifest = read_folders(videos)
    assert manifest.label_map.names == {LABEL: ("fall", "lie down")}
    assert [(c.clip_id, os.path.relpath(c.uri, videos), c.labels, c.split) for c in manifest.clips] == [
        ("train/fall/1", FILES[0], (0,), TRAIN),
        ("train/fall/2", FILES[1], (0,), TRAIN),
        ("train/lie down/1", FILES[2], (1,), TRAIN),
        ("validation/lie down/9", FILES[3], (1,), VALIDATION),
    ]


def test_the_validation_folder_may_be_called_val(videos):
    (videos / "validation").rename(videos / "val")
    assert [clip.clip_id for clip in read_folders(videos).split(VALIDATION)] == ["val/lie down/9"]


def test_two_validation_folders_are_refused(videos):
    touch(videos, "val/fall/1.mp4")
    with pytest.raises(UserError, match="has validation and val; give it the folders train and validation"):
        read_folders(videos)


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_missing_split_is_named(videos, split):
    shutil.rmtree(videos / split)
    with pytest.raises(UserError, match=f"has no folder {split}; give it the folders"):
        read_folders(videos)


@pytest.mark.parametrize("split", ["train", "validation"])
def test_an_empty_split_is_refused(videos, split):
    shutil.rmtree(videos / split)
    (videos / split / "fall").mkdir(parents=True)
    with pytest.raises(UserError, match=f"has no clips for the split '{split}'"):
        read_folders(videos)


def test_a_split_whose_only_video_has_a_name_that_is_no_text_says_so(videos):
    (videos / "train/lie down/1.webm").unlink()
    for file in FILES[:2]:
        (videos / file).unlink()
    odd_name(videos)
    with pytest.raises(UserError, match=r"1 files whose names are not UTF-8 text: train/fall/caf.xe9.mp4"):
        read_folders(videos)


def test_a_class_without_training_clips_is_refused(videos):
    touch(videos, "validation/Fall/1.mp4")
    with pytest.raises(UserError, match=r"file 'validation/Fall/1.mp4': label 'Fall' of clip .* does not occur among"):
        read_folders(videos)


def odd_name(videos) -> None:
    with open(os.fsencode(videos) + b"/train/fall/caf\xe9.mp4", "wb"):
        pass


@pytest.mark.parametrize(
    ("make", "said"),
    [
        ("train/1.mp4", "1 videos that are not directly in a class's folder: train/1.mp4;"),
        ("1.mp4", "1 videos that are not directly in a class's folder: 1.mp4;"),
        ("train/fall/monday/1.mp4", "1 folders that lie deeper than videos are looked for: train/fall/monday;"),
        ("train/fall/1/2/3/4/1.mp4", "1 folders that lie deeper than videos are looked for: train/fall/1;"),
        ("train/fall/1.mov", "1 videos that differ from another one only by what follows the last dot: train/fall/1."),
        ("train/fall/3.mp4.part", "1 files whose names do not end as those of videos: train/fall/3.mp4.part;"),
        ("train/labels.txt", "1 files whose names do not end as those of videos: train/labels.txt;"),
        ("raw/fall/3.mp4", "1 folders beside train and validation: raw;"),
        ("train/sit/", "1 folders of classes without a video: train/sit;"),
        ("validation/fall/", "1 folders of classes without a video: validation/fall;"),
        (lambda videos: (videos / "train/fall/3.mp4").symlink_to("gone"), "lead nowhere: train/fall/3.mp4;"),
        (odd_name, "1 files whose names are not UTF-8 text: train/fall/caf\\xe9.mp4;"),
    ],
)
def test_what_does_not_become_a_clip_is_refused_unless_the_caller_takes_the_report(videos, make, said):
    expected = read_folders(videos)
    if callable(make):
        make(videos)
    elif make.endswith("/"):
        (videos / make).mkdir(parents=True)
    else:
        touch(videos, make)
    with pytest.raises(UserError) as caught:
        read_folders(videos)
    assert said in str(caught.value)
    assert f"'{videos}' has " in str(caught.value)
    reports: list[str] = []
    assert read_folders(videos, on_skip=reports.append) == expected
    assert reports == [str(caught.value)]


@pytest.mark.parametrize("file", ["train/fall/3.m4v", "train/fall/3.MPG", "train/fall/3.wmv"])
def test_other_containers_are_clips(videos, file):
    touch(videos, file)
    assert str(videos / file) in {clip.uri for clip in read_folders(videos).clips}


def test_a_missing_folder_is_named(videos):
    with pytest.raises(UserError, match=r"the video folder .*nowhere. does not exist"):
        read_folders(videos / "nowhere")
