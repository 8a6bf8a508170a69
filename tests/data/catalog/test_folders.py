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
    touch(videos, "train/fall/notes.txt")
    touch(videos, "raw/fall/3.mp4")
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


def test_a_class_without_training_clips_is_refused(videos):
    touch(videos, "validation/Fall/1.mp4")
    with pytest.raises(UserError, match=r"file 'validation/Fall/1.mp4': label 'Fall' of clip .* does not occur among"):
        read_folders(videos)


@pytest.mark.parametrize("file", ["train/1.mp4", "train/fall/monday/1.mp4"])
def test_videos_that_are_not_directly_in_a_class_are_refused(videos, file):
    touch(videos, file)
    with pytest.raises(UserError, match=f"has the video '{file}', which is not directly in a class's folder; move it"):
        read_folders(videos)


def test_a_missing_folder_is_named(videos):
    with pytest.raises(UserError, match=r"the video folder .*nowhere. does not exist"):
        read_folders(videos / "nowhere")
