"""UCF-101: what is its own; see test_readers.py for the rest."""

from __future__ import annotations

import pytest

from cast_ray.data.catalog import read_ucf101
from cast_ray.errors import UserError

CLIP = "HandstandPushups/v_HandStandPushups_g{group:02d}_c01.avi"


@pytest.fixture
def dataset(tmp_path):
    (tmp_path / "classInd.txt").write_text("1 HandstandPushups\r\n")
    for split in (1, 2, 3):
        (tmp_path / f"trainlist0{split}.txt").write_text(f"{CLIP.format(group=split)} 1\r\n")
        (tmp_path / f"testlist0{split}.txt").write_text(f"{CLIP.format(group=split + 10)}\r\n")
        for group in (split, split + 10):
            (tmp_path / "videos" / CLIP.format(group=group)).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "videos" / CLIP.format(group=group)).touch()
    return tmp_path


@pytest.mark.parametrize("split", [1, 2, 3])
def test_each_split_has_its_own_lists(dataset, split):
    """The class of this clip is spelt differently in folder and file, as it is in the dataset."""
    found = [clip.clip_id for clip in read_ucf101(dataset / "videos", dataset, split=split).clips]
    assert found == [f"v_HandStandPushups_g{group:02d}_c01" for group in (split, split + 10)]


def test_files_need_no_folders_of_classes(dataset):
    for path in list((dataset / "videos" / "HandstandPushups").iterdir()):
        path.rename(dataset / "videos" / path.name)
    assert len(read_ucf101(dataset / "videos", dataset).clips) == 2


def test_a_file_in_another_class_is_not_taken(dataset):
    (dataset / "videos" / "Other").mkdir()
    path = dataset / "videos" / CLIP.format(group=1)
    path.rename(dataset / "videos" / "Other" / path.name)
    with pytest.raises(UserError, match="names 1 clips of 1 that have no video file"):
        read_ucf101(dataset / "videos", dataset)


@pytest.mark.parametrize("split", [0, 4])
def test_other_splits_are_refused(dataset, split):
    with pytest.raises(UserError, match=f"no split {split}; choose 1, 2 or 3"):
        read_ucf101(dataset / "videos", dataset, split=split)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("HandstandPushups/", "Unicycling/", "line 1: class 'Unicycling' of .* is not in classInd.txt"),
        ("avi 1", "avi 2", "line 1: .* has the class index 2, but classInd.txt says 1"),
    ],
)
def test_classes_that_contradict_the_class_file_are_located(dataset, old, new, said):
    path = dataset / "trainlist01.txt"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(UserError, match=said):
        read_ucf101(dataset / "videos", dataset)


def test_class_indices_must_be_consecutive_from_1(dataset):
    (dataset / "classInd.txt").write_text("2 HandstandPushups\n")
    with pytest.raises(
        UserError, match=r"classInd.txt' has 1 classes, whose indices must be 1 to 1, .* missing: \[1\]"
    ):
        read_ucf101(dataset / "videos", dataset)
