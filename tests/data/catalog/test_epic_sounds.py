"""EPIC-SOUNDS and the sounds of HD-EPIC: what is theirs alone; see test_readers.py for the rest."""

from __future__ import annotations

import pytest

from cast_ray.data.catalog.epic_sounds import EPIC_SOUNDS, read_epic_sounds
from cast_ray.errors import UserError
from cast_ray.labels import LABEL

HEADER = (
    "annotation_id,participant_id,video_id,start_timestamp,stop_timestamp,start_sample,stop_sample,description,class,"
    "class_id\n"
)
ROW = "{video}_{n},P01,{video},00:00:0{n}.466,00:00:09.315,1,2,paper rustle,{name},{index}\n"


def read(folder, train: list[tuple[str, int]], validation: list[tuple[str, int]]):
    (folder / "videos").mkdir()
    for split, video, classes in (("train", "P01_01", train), ("validation", "P01_11", validation)):
        rows = [ROW.format(video=video, n=n, name=name, index=index) for n, (name, index) in enumerate(classes)]
        (folder / f"EPIC_Sounds_{split}.csv").write_text(HEADER + "".join(rows))
        (folder / "videos" / f"{video}.MP4").touch()
    return read_epic_sounds(folder / "videos", folder)


def test_a_part_of_the_dataset_has_all_44_classes(tmp_path):
    """Indices and label map of a part, and of HD-EPIC, are those of the whole."""
    manifest = read(tmp_path, [("rustle", 4)], [("drink / eat", 43)])
    assert manifest.label_map.names[LABEL] == EPIC_SOUNDS
    assert len(EPIC_SOUNDS) == 44
    assert [clip.labels for clip in manifest.clips] == [(4,), (43,)]


def test_names_and_classes_of_the_files_come_first(tmp_path):
    names = read(tmp_path, [("crackle", 4), ("tap water", 44)], [("crackle", 4)]).label_map.names[LABEL]
    assert names == (*EPIC_SOUNDS[:4], "crackle", *EPIC_SOUNDS[5:], "tap water")


def test_a_class_with_two_names_is_refused_with_both_places(tmp_path):
    with pytest.raises(UserError) as caught:
        read(tmp_path, [("rustle", 4), ("water", 5)], [("water", 5), ("water", 4)])
    message = str(caught.value)
    assert "EPIC_Sounds_validation.csv', line 3: class 4 is called 'water', but 'rustle' in '" in message
    assert "EPIC_Sounds_train.csv', line 2; correct one" in message


def test_cut_videos_of_other_segments_with_the_same_ids_are_not_taken(tmp_path):
    (tmp_path / "videos").mkdir()
    for split, video in (("train", "P01_01"), ("validation", "P01_11")):
        (tmp_path / f"EPIC_Sounds_{split}.csv").write_text(
            HEADER + ROW.format(video=video, n=0, name="rustle", index=4)
        )
        (tmp_path / "videos" / f"{video}_0.mp4").touch()
    with pytest.raises(UserError, match="names 1 clips of 1 that have no video file"):
        read_epic_sounds(tmp_path / "videos", tmp_path)


@pytest.mark.parametrize("index", [-1, 60])
def test_class_ids_with_gaps_are_refused(tmp_path, index):
    with pytest.raises(UserError, match="45 classes, whose indices must be 0 to 44"):
        read(tmp_path, [("rustle", index)], [("rustle", 4)])
