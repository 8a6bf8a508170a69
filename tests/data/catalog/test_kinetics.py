"""Kinetics and Kinetics-Sounds: what is theirs alone; see test_readers.py for the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from cast_ray.data.catalog.kinetics import KINETICS_SOUNDS, read_kinetics, read_kinetics_sounds
from cast_ray.errors import UserError
from cast_ray.labels import LABEL

HEADER = "label,youtube_id,time_start,time_end,split,is_cc\n"
TRAIN_ROWS = "testifying,---QUuC4vJs,84,94,train,0\nbowling,--3ouPhoy2A,20,30,train,0\n"
VALIDATION_ROWS = "bowling,0wR5jVB-WPk,1417,1427,val,0\n"


def write(folder: Path, train: str, validation: str, names: tuple[str, str] = ("train.csv", "val.csv")) -> Path:
    for name, rows in zip(names, (train, validation), strict=True):
        (folder / name).write_text(HEADER + rows)
    return folder


def touch(folder: Path, *files: str) -> Path:
    for file in files:
        (folder / "videos" / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / "videos" / file).touch()
    return folder / "videos"


@pytest.mark.parametrize(
    "files",
    [
        ("---QUuC4vJs_000084_000094.mp4", "--3ouPhoy2A_000020_000030.mp4", "0wR5jVB-WPk_001417_001427.mp4"),
        ("---QUuC4vJs.mp4", "--3ouPhoy2A.mkv", "0wR5jVB-WPk.mp4"),
        ("train/---QUuC4vJs.mp4", "train/--3ouPhoy2A_000020_000030.mp4", "val/0wR5jVB-WPk.mp4"),
        ("testifying/---QUuC4vJs.mp4", "bowling/--3ouPhoy2A.mp4", "bowling/0wR5jVB-WPk_001417_001427.mp4"),
        ("train/testifying/---QUuC4vJs.mp4", "train/bowling/--3ouPhoy2A.mp4", "val/bowling/0wR5jVB-WPk.mp4"),
    ],
    ids=["with times", "ids alone", "per split", "per class", "per split and class"],
)
@pytest.mark.parametrize("names", [("train.csv", "validate.csv"), ("kinetics-600_train.csv", "kinetics-600_val.csv")])
def test_all_usual_places_and_names_give_the_same_clips(tmp_path, files, names):
    videos = touch(tmp_path, *files)
    manifest = read_kinetics(videos, write(tmp_path, TRAIN_ROWS, VALIDATION_ROWS, names))
    assert [clip.uri for clip in manifest.clips] == [str(videos / file) for file in files]
    assert [(clip.clip_id, clip.labels) for clip in manifest.clips] == [
        ("---QUuC4vJs_000084_000094", (1,)),
        ("--3ouPhoy2A_000020_000030", (0,)),
        ("0wR5jVB-WPk_001417_001427", (0,)),
    ]
    assert {(clip.start_s, clip.stop_s) for clip in manifest.clips} == {(None, None)}


def test_two_clips_of_one_youtube_video_need_two_files(tmp_path):
    videos = touch(tmp_path, "---QUuC4vJs.mp4", "--3ouPhoy2A.mp4", "0wR5jVB-WPk.mp4")
    write(tmp_path, TRAIN_ROWS + "bowling,---QUuC4vJs,4,14,train,0\n", VALIDATION_ROWS)
    with pytest.raises(UserError, match=r"train.csv', line 4: clip .* has the video file .* line 2 has too"):
        read_kinetics(videos, tmp_path)


def test_a_validation_label_without_training_clips_is_located(tmp_path):
    videos = touch(tmp_path, "---QUuC4vJs.mp4", "--3ouPhoy2A.mp4", "0wR5jVB-WPk.mp4")
    write(tmp_path, TRAIN_ROWS, VALIDATION_ROWS.replace("bowling", "Bowling"))
    with pytest.raises(UserError, match=r"val.csv', line 2: label 'Bowling' of clip .* does not occur among the train"):
        read_kinetics(videos, tmp_path)


def test_classes_stay_the_same_when_their_videos_have_gone(tmp_path):
    """Indices must not depend on what somebody could still download."""
    videos = touch(tmp_path, "--3ouPhoy2A.mp4", "0wR5jVB-WPk.mp4")
    manifest = read_kinetics(videos, write(tmp_path, TRAIN_ROWS, VALIDATION_ROWS), on_skip=lambda _: None)
    assert manifest.label_map.names[LABEL] == ("bowling", "testifying")


def test_kinetics_sounds_keeps_its_31_classes_alone(tmp_path):
    classes = [*KINETICS_SOUNDS, "testifying", "strumming guitar"]
    rows = dict.fromkeys(("train", "val"), "")
    for split in rows:
        for number, name in enumerate(classes):
            rows[split] += f"{name},{split}-{number:02d},0,10,{split},0\n"
    videos = touch(tmp_path, *(f"{split}/{split}-{number:02d}.mp4" for split in rows for number in range(len(classes))))
    manifest = read_kinetics_sounds(videos, write(tmp_path, rows["train"], rows["val"]))
    assert manifest.label_map.names[LABEL] == KINETICS_SOUNDS
    assert len(set(KINETICS_SOUNDS)) == 31
    assert len(manifest.clips) == 2 * 31
    assert all(int(clip.uri[-6:-4]) == clip.labels[0] for clip in manifest.clips)


def test_a_class_of_kinetics_sounds_that_the_annotations_lack_is_named(tmp_path):
    videos = touch(tmp_path, "--3ouPhoy2A.mp4", "0wR5jVB-WPk.mp4")
    with pytest.raises(UserError, match=r"has no clips of \['blowing nose', .*'tickling'\]; give the annotations"):
        read_kinetics_sounds(videos, write(tmp_path, TRAIN_ROWS, VALIDATION_ROWS))
