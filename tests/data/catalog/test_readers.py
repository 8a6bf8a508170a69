"""All readers: what each gets from files in the official layout, and what all say when such files are wrong."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cast_ray.data.catalog import (
    read_activitynet,
    read_cast_csv,
    read_ek100,
    read_epic_sounds,
    read_hd_epic,
    read_hd_epic_sounds,
    read_kinetics,
    read_ssv2,
    read_ucf101,
    read_vggsound,
)
from cast_ray.data.manifest import TRAIN, VALIDATION, Manifest
from cast_ray.errors import UserError

KINETICS_HEADER = "label,youtube_id,time_start,time_end,split\n"
EK100_HEADER = (
    "narration_id,participant_id,video_id,narration_timestamp,start_timestamp,stop_timestamp,start_frame,stop_frame,"
    "narration,verb,verb_class,noun,noun_class,all_nouns,all_noun_classes\n"
)
EK100_FILES = {
    "EPIC_100_train.csv": EK100_HEADER
    + "P01_01_0,P01,P01_01,00:00:01.089,00:00:00.14,00:00:03.37,8,202,open door,open,1,door,0,['door'],[0]\n"
    + "P22_107_1,P22,P22_107,00:59:02.6,00:59:58.5,01:00:06.17,215910,216370,take it,take,0,light,1,['light'],[1]\n",
    "EPIC_100_validation.csv": EK100_HEADER
    + "P01_11_0,P01,P01_11,00:00:00.56,00:00:00.00,00:00:01.89,1,113,take door,take,0,door,0,['door'],[0]\n",
    "EPIC_100_verb_classes.csv": "id,key,instances,category\n0,take,\"['take', 'grab']\",retrieve\n1,open,['open'],x\n",
    "EPIC_100_noun_classes.csv": "id,key,instances,category\n0,door,['door'],x\n1,light,['light'],x\n",
}
SOUNDS_HEADER = (
    "annotation_id,participant_id,video_id,start_timestamp,stop_timestamp,start_sample,stop_sample,description,class,"
    "class_id\n"
)
HD_EPIC_HEADER = (
    "unique_narration_id,participant_id,video_id,narration,start_timestamp,end_timestamp,nouns,verbs,pairs,"
    "main_actions,verb_classes,noun_classes,pair_classes,main_action_classes,hands,narration_timestamp\n"
)
ACTIVITYNET = {
    "version": "VERSION 1.3",
    "taxonomy": [{"parentName": "Root", "nodeName": "Running", "nodeId": 1, "parentId": 0}],
    "database": {
        "sJFgo9H6zNo": {
            "duration": 124.23,
            "subset": "training",
            "resolution": "480x360",
            "url": "https://www.youtube.com/watch?v=sJFgo9H6zNo",
            "annotations": [
                {"segment": [0, 124.224], "label": "Washing dishes"},
                {"segment": [1.5, 9.25], "label": "Belly dance"},
            ],
        },
        "ogQozSI5V8U": {
            "duration": 50.5,
            "subset": "training",
            "resolution": "640x480",
            "url": "https://www.youtube.com/watch?v=ogQozSI5V8U",
            "annotations": [{"segment": [2.25, 50.5], "label": "Belly dance"}],
        },
        "b9jKQ-zc-hw": {
            "duration": 70.0,
            "subset": "validation",
            "resolution": "640x480",
            "url": "https://www.youtube.com/watch?v=b9jKQ-zc-hw",
            "annotations": [{"segment": [30.5, 68.125], "label": "Belly dance"}],
        },
        "fAc1mhkIkGM": {"duration": 20.0, "subset": "testing", "resolution": "", "url": "", "annotations": []},
    },
}


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A tiny copy of one dataset."""

    read: Callable[..., Manifest]
    files: dict[str, str]
    videos: tuple[str, ...]
    clips: dict[str, tuple]
    """Clip id -> split, label names, file, first and last second."""
    wanted: str
    """What `files` call the video of the first clip."""
    times: tuple[str, str] | None = None
    """How `files` write the first and last second of the first clip."""
    columns: tuple[str, ...] = ()
    """Columns without which the first file cannot be read."""
    index: tuple[str, str, str] | None = None
    """What stands before, as and after the first clip's class index in the first file."""
    settings: dict = field(default_factory=dict)


LAYOUTS = {
    "ssv2": Layout(
        read=read_ssv2,
        files={
            "train.json": json.dumps(
                [
                    {"id": "78687", "label": "x", "template": "Holding [something]"},
                    {"id": "42326", "label": "z", "template": "Putting [something]"},
                ]
            ),
            "validation.json": json.dumps([{"id": "74225", "label": "y", "template": "Putting [something]"}]),
            "labels.json": '{"Putting something": "1", "Holding something": "0"}',
        },
        videos=("78687.webm", "42326.webm", "74225.webm"),
        clips={
            "78687": (TRAIN, "Holding something", "78687.webm", None, None),
            "42326": (TRAIN, "Putting something", "42326.webm", None, None),
            "74225": (VALIDATION, "Putting something", "74225.webm", None, None),
        },
        wanted="78687",
    ),
    "kinetics": Layout(
        read=read_kinetics,
        files={
            "train.csv": KINETICS_HEADER
            + "testifying,---QUuC4vJs,84,94,train\n"
            + '"playing ""drums"", loud",--3ouPhoy2A,20,30,train\n',
            "val.csv": KINETICS_HEADER + "testifying,0wR5jVB-WPk,1417,1427,val\n",
            "test.csv": KINETICS_HEADER + "abseiling,7z0_AGaZ4-M,0,10,test\n",
        },
        videos=(
            "train/---QUuC4vJs_000084_000094.mp4",
            "train/--3ouPhoy2A_000020_000030.mp4",
            "val/0wR5jVB-WPk_001417_001427.mp4",
        ),
        clips={
            "---QUuC4vJs_000084_000094": (
                TRAIN,
                "testifying",
                "train/---QUuC4vJs_000084_000094.mp4",
                None,
                None,
            ),
            "--3ouPhoy2A_000020_000030": (
                TRAIN,
                'playing "drums", loud',
                "train/--3ouPhoy2A_000020_000030.mp4",
                None,
                None,
            ),
            "0wR5jVB-WPk_001417_001427": (
                VALIDATION,
                "testifying",
                "val/0wR5jVB-WPk_001417_001427.mp4",
                None,
                None,
            ),
        },
        wanted="---QUuC4vJs",
        times=("84", "94"),
        columns=("label", "youtube_id", "time_start", "time_end"),
    ),
    "ek100, cut": Layout(
        read=read_ek100,
        files=EK100_FILES,
        videos=("P01_01_0.mp4", "P22_107_1.mp4", "P01_11_0.mp4"),
        clips={
            "P01_01_0": (TRAIN, "open door", "P01_01_0.mp4", None, None),
            "P22_107_1": (TRAIN, "take light", "P22_107_1.mp4", None, None),
            "P01_11_0": (VALIDATION, "take door", "P01_11_0.mp4", None, None),
        },
        wanted="P01_01_0",
        index=("open,", "1", ","),
        times=("00:00:00.14", "00:00:03.37"),
        columns=("narration_id", "start_timestamp", "stop_timestamp", "verb_class", "noun_class"),
    ),
    "ek100, whole recordings": Layout(
        read=read_ek100,
        files=EK100_FILES,
        videos=("P01/videos/P01_01.MP4", "P22/P22_107.MP4", "P01/videos/P01_11.MP4"),
        clips={
            "P01_01_0": (TRAIN, "open door", "P01/videos/P01_01.MP4", 0.14, 3.37),
            "P22_107_1": (TRAIN, "take light", "P22/P22_107.MP4", 3598.5, 3606.17),
            "P01_11_0": (VALIDATION, "take door", "P01/videos/P01_11.MP4", 0.0, 1.89),
        },
        wanted=",P01_01,",
        times=("00:00:00.14", "00:00:03.37"),
        columns=("narration_id", "video_id", "start_timestamp", "stop_timestamp", "verb_class", "noun_class"),
    ),
    "ucf101": Layout(
        read=read_ucf101,
        files={
            "trainlist02.txt": "ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi 1\nYoYo/v_YoYo_g25_c05.avi 2\n",
            "testlist02.txt": "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi\n",
            "classInd.txt": "1 ApplyEyeMakeup\n2 YoYo\n",
        },
        videos=(
            "ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi",
            "YoYo/v_YoYo_g25_c05.avi",
            "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi",
        ),
        clips={
            "v_ApplyEyeMakeup_g01_c01": (
                TRAIN,
                "ApplyEyeMakeup",
                "ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi",
                None,
                None,
            ),
            "v_YoYo_g25_c05": (TRAIN, "YoYo", "YoYo/v_YoYo_g25_c05.avi", None, None),
            "v_ApplyEyeMakeup_g08_c01": (
                VALIDATION,
                "ApplyEyeMakeup",
                "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi",
                None,
                None,
            ),
        },
        wanted="ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi",
        index=("avi ", "1", ""),
        settings={"split": 2},
    ),
    "vggsound": Layout(
        read=read_vggsound,
        files={
            "vggsound.csv": "--0PQM4-hqg,30,waterfall burbling,train\n"
            '--A_LTaTnJo,185,"playing violin, fiddle",train\n'
            '---g-f_I2yQ,1,"playing violin, fiddle",test\n'
        },
        videos=("--0PQM4-hqg_000030.mp4", "--A_LTaTnJo_000185.mp4", "---g-f_I2yQ_000001.mp4"),
        clips={
            "--0PQM4-hqg_000030": (TRAIN, "waterfall burbling", "--0PQM4-hqg_000030.mp4", None, None),
            "--A_LTaTnJo_000185": (TRAIN, "playing violin, fiddle", "--A_LTaTnJo_000185.mp4", None, None),
            "---g-f_I2yQ_000001": (VALIDATION, "playing violin, fiddle", "---g-f_I2yQ_000001.mp4", None, None),
        },
        wanted="--0PQM4-hqg",
    ),
    "epic_sounds": Layout(
        read=read_epic_sounds,
        files={
            "EPIC_Sounds_train.csv": SOUNDS_HEADER
            + "P01_01_0,P01,P01_01,00:00:02.466,00:00:05.315,59184,127560,paper rustle,rustle,4\n"
            + "P01_02_1,P01,P01_02,00:00:04.100,00:00:06.000,98400,144000,tap running,water,5\n",
            "EPIC_Sounds_validation.csv": SOUNDS_HEADER
            + "P01_11_0,P01,P01_11,00:00:02.069,00:00:02.993,49656,71832,clang / clatter,ceramic / wood collision,34\n",
        },
        videos=("P01/P01_01.MP4", "P01/P01_02.MP4", "P01/P01_11.MP4"),
        clips={
            "P01_01_0": (TRAIN, "rustle", "P01/P01_01.MP4", 2.466, 5.315),
            "P01_02_1": (TRAIN, "water", "P01/P01_02.MP4", 4.1, 6.0),
            "P01_11_0": (VALIDATION, "ceramic / wood collision", "P01/P01_11.MP4", 2.069, 2.993),
        },
        wanted=",P01_01,",
        times=("00:00:02.466", "00:00:05.315"),
        index=("rustle,", "4", ""),
        columns=("annotation_id", "video_id", "start_timestamp", "stop_timestamp", "class", "class_id"),
    ),
    "hd_epic_sounds": Layout(
        read=read_hd_epic_sounds,
        files={
            "HD_EPIC_Sounds.csv": "participant_id,video_id,start_timestamp,stop_timestamp,start_sample,stop_sample,"
            "class,class_id\n"
            "P01,P01-20240202-110250,00:00:00.476,00:00:02.520,22848,120960,rustle,4\n"
            "P01,P01-20240202-110250,00:00:00.476,00:00:02.520,22848,120960,water,5\n"
            "P02,P02-20240209-184316,00:00:01.000,00:00:02.000,48000,96000,water,5\n"
        },
        videos=("Videos/P01/P01-20240202-110250.mp4", "Videos/P02/P02-20240209-184316.mp4"),
        clips={
            "P01-20240202-110250-sound-2": (
                VALIDATION,
                "rustle",
                "Videos/P01/P01-20240202-110250.mp4",
                0.476,
                2.52,
            ),
            "P01-20240202-110250-sound-3": (
                VALIDATION,
                "water",
                "Videos/P01/P01-20240202-110250.mp4",
                0.476,
                2.52,
            ),
            "P02-20240209-184316-sound-4": (
                VALIDATION,
                "water",
                "Videos/P02/P02-20240209-184316.mp4",
                1.0,
                2.0,
            ),
        },
        wanted="P01-20240202-110250",
        times=("00:00:00.476", "00:00:02.520"),
        index=("rustle,", "4", ""),
        columns=("video_id", "start_timestamp", "stop_timestamp", "class", "class_id"),
    ),
    "activitynet": Layout(
        read=read_activitynet,
        files={"activity_net.v1-3.min.json": json.dumps(ACTIVITYNET)},
        videos=("train/v_sJFgo9H6zNo.mkv", "train/v_ogQozSI5V8U.mp4", "val/b9jKQ-zc-hw.mp4"),
        clips={
            "sJFgo9H6zNo_1": (TRAIN, "Washing dishes", "train/v_sJFgo9H6zNo.mkv", 0.0, 124.224),
            "sJFgo9H6zNo_2": (TRAIN, "Belly dance", "train/v_sJFgo9H6zNo.mkv", 1.5, 9.25),
            "ogQozSI5V8U_1": (TRAIN, "Belly dance", "train/v_ogQozSI5V8U.mp4", 2.25, 50.5),
            "b9jKQ-zc-hw_1": (VALIDATION, "Belly dance", "val/b9jKQ-zc-hw.mp4", 30.5, 68.125),
        },
        wanted='"sJFgo9H6zNo"',
        times=("0,", "124.224"),
    ),
    "hd_epic": Layout(
        read=read_hd_epic,
        files={
            "HD_EPIC_Narrations.csv": HD_EPIC_HEADER
            + "P01-20240202-110250-1,P01,P01-20240202-110250,Open the upper cupboard by holding its handle.,7.44,8.75,"
            "\"['upper cupboard', 'handle']\",\"['open', 'hold']\",\"[('open', 'upper cupboard')]\","
            '"[(\'open\', \'upper cupboard\')]","[1, 0]","[1, 1]","[(1, 1), (0, 1)]","[(1, 1)]",[\'left hand\'],8.0\n'
            + "P02-20240209-184316-7,P02,P02-20240209-184316,Take a tap.,70.0,71.5,['tap'],['take'],"
            "\"[('take', 'tap')]\",\"[('take', 'tap'), ('open', 'tap')]\",[0],[0],\"[(0, 0)]\",\"[(0, 0), (1, 0)]\","
            "[],70.5\n",
            "HD_EPIC_verb_classes.csv": "id,key,instances,category\n0,take,['take'],retrieve\n1,open,['open'],access\n",
            "HD_EPIC_noun_classes.csv": "id,key,instances,category\n0,tap,['tap'],x\n1,cupboard,['cupboard'],x\n",
        },
        videos=("P01/P01-20240202-110250.mp4", "P02/P02-20240209-184316.mp4"),
        clips={
            "P01-20240202-110250-1": (
                VALIDATION,
                "open cupboard",
                "P01/P01-20240202-110250.mp4",
                7.44,
                8.75,
            ),
            "P02-20240209-184316-7": (VALIDATION, "take tap", "P02/P02-20240209-184316.mp4", 70.0, 71.5),
        },
        wanted=",P01-20240202-110250,",
        times=("7.44", "8.75"),
        columns=("unique_narration_id", "video_id", "start_timestamp", "end_timestamp", "main_action_classes"),
    ),
    "CAST, verb and noun": Layout(
        read=read_cast_csv,
        files={"train.csv": "P01_01_0,1,0\nP01_01_1,0,2\n", "val.csv": "P01_11_0,1,1\n"},
        videos=("P01_01_0.mp4", "P01_01_1.mp4", "P01_11_0.mp4"),
        clips={
            "P01_01_0": (TRAIN, "1 0", "P01_01_0.mp4", None, None),
            "P01_01_1": (TRAIN, "0 2", "P01_01_1.mp4", None, None),
            "P01_11_0": (VALIDATION, "1 1", "P01_11_0.mp4", None, None),
        },
        wanted="P01_01_0",
        index=(",", "1", ","),
    ),
    "CAST, label": Layout(
        read=read_cast_csv,
        files={"train.csv": "a clip.mp4 1\n41SuIRlLFe0.mp4 0\n", "val.csv": "vYau9SZXn54.mp4  2\n"},
        videos=("train/a clip.mp4", "train/41SuIRlLFe0.mp4", "val/vYau9SZXn54.mp4"),
        clips={
            "a clip": (TRAIN, "1", "train/a clip.mp4", None, None),
            "41SuIRlLFe0": (TRAIN, "0", "train/41SuIRlLFe0.mp4", None, None),
            "vYau9SZXn54": (VALIDATION, "2", "val/vYau9SZXn54.mp4", None, None),
        },
        wanted="a clip.mp4",
        index=("mp4 ", "1", ""),
    ),
}
LINES = [name for name, layout in LAYOUTS.items() if not next(iter(layout.files)).endswith(".json")]
TIMES = [name for name, layout in LAYOUTS.items() if layout.times]
IDS = [name for name in LINES if name != "hd_epic_sounds"]


@dataclass(frozen=True)
class Copy:
    """A layout on disk."""

    layout: Layout
    folder: Path

    @property
    def first(self) -> Path:
        """The file that names the first clip."""
        return self.folder / "annotations" / next(iter(self.layout.files))

    def read(self, **settings) -> Manifest:
        return self.layout.read(
            self.folder / "videos", self.folder / "annotations", **(self.layout.settings | settings)
        )

    def refusal(self, **settings) -> str:
        with pytest.raises(UserError) as caught:
            self.read(**settings)
        return str(caught.value)

    def replace(self, old: str, new: str) -> None:
        """Replace the first `old` in the file that names the first clip."""
        text = self.first.read_text()
        assert old in text
        self.first.write_text(text.replace(old, new, 1))


@pytest.fixture
def copy(request, tmp_path) -> Copy:
    layout = LAYOUTS[request.param]
    (tmp_path / "annotations").mkdir()
    for name, text in layout.files.items():
        (tmp_path / "annotations" / name).write_text(text)
    for video in layout.videos:
        (tmp_path / "videos" / video).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "videos" / video).touch()
    return Copy(layout, tmp_path)


def of(names) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("copy", names, indirect=True)


@of(LAYOUTS)
def test_clips_have_the_split_labels_file_and_seconds_of_the_annotations(copy):
    manifest = copy.read()
    names = list(manifest.label_map.names.values())
    found = {
        clip.clip_id: (
            clip.split,
            " ".join(of_field[index] for of_field, index in zip(names, clip.labels, strict=True)),
            os.path.relpath(clip.uri, copy.folder / "videos"),
            clip.start_s,
            clip.stop_s,
        )
        for clip in manifest.clips
    }
    assert found == copy.layout.clips
    assert all(os.path.isabs(clip.uri) for clip in manifest.clips)


@of(LINES)
def test_lines_may_end_as_on_windows_and_begin_with_a_byte_order_mark(copy):
    expected = copy.read()
    for path in (copy.folder / "annotations").iterdir():
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert copy.read() == expected


@of(LAYOUTS)
@pytest.mark.parametrize("missing", ["videos", "annotations"])
def test_a_missing_folder_is_named(copy, missing):
    shutil.rmtree(copy.folder / missing)
    assert f"'{copy.folder / missing}' does not exist" in copy.refusal()


@of(LAYOUTS)
def test_each_missing_annotation_file_is_named(copy):
    needed = [name for name in copy.layout.files if name != "test.csv"]
    for name in needed:
        path = copy.folder / "annotations" / name
        text = path.read_text()
        path.unlink()
        assert f"has no {name}" in copy.refusal()
        path.write_text(text)


@of(LAYOUTS)
def test_a_clip_without_a_video_is_refused_unless_the_caller_takes_the_report(copy):
    first, expected = next(iter(copy.layout.clips.items()))
    lost = [clip_id for clip_id, (_, _, video, _, _) in copy.layout.clips.items() if video == expected[2]]
    (copy.folder / "videos" / expected[2]).unlink()
    message = copy.refusal()
    assert f"names {len(lost)} clips of " in message
    assert f"'{copy.folder / 'videos'}': {first}" in message
    reports = []
    manifest = copy.read(on_skip=reports.append)
    assert reports == [message]
    assert [clip.clip_id for clip in manifest.clips] == [name for name in copy.layout.clips if name not in lost]


@of(LAYOUTS)
def test_a_dataset_without_any_video_is_refused_even_if_clips_may_be_left_out(copy):
    shutil.rmtree(copy.folder / "videos")
    (copy.folder / "videos").mkdir()
    assert "has no clip that can be used" in copy.refusal(on_skip=lambda _: None)


@of(LAYOUTS)
@pytest.mark.parametrize("leaving", ["../../secret", "/etc/secret"])
def test_a_video_outside_the_folder_is_refused(copy, leaving):
    copy.replace(copy.layout.wanted, copy.layout.wanted.replace(copy.layout.wanted.strip(',"'), leaving))
    message = copy.refusal()
    assert "give a path below the video folder" in message
    assert leaving in message
    assert copy.first.name in message


@of(IDS)
def test_two_clips_with_one_id_are_refused_with_both_places(copy):
    lines = copy.first.read_text().splitlines()
    number = 2 if copy.layout.columns else 1
    copy.first.write_text("\n".join([*lines, lines[number - 1]]))
    message = copy.refusal()
    assert "with an id that an earlier clip has" in message
    assert f"(line {len(lines) + 1}, first in '{copy.first}', line {number})" in message


@of(LINES)
def test_an_empty_file_is_refused(copy):
    header = copy.first.read_text().splitlines()[0]
    copy.first.write_text(header if copy.layout.columns else "")
    assert f"'{copy.first}' has no clips for the split" in copy.refusal()


@of(LAYOUTS)
def test_a_file_that_is_no_text_is_refused(copy):
    copy.first.write_bytes(copy.first.read_bytes() + b"\xff\xfe")
    assert str(copy.first) in copy.refusal()


@of([name for name, layout in LAYOUTS.items() if layout.columns])
def test_each_missing_column_is_named(copy):
    header, rest = copy.first.read_text().split("\n", 1)
    for column in copy.layout.columns:
        other = ",".join("other" if name == column else name for name in header.split(","))
        copy.first.write_text(f"{other}\n{rest}")
        assert f"'{copy.first}' has no column ['{column}']" in copy.refusal()


@of(TIMES)
@pytest.mark.parametrize("which", [0, 1])
def test_a_time_that_is_none_is_located(copy, which):
    end = "," if copy.layout.times[which].endswith(",") else ""
    copy.replace(copy.layout.times[which], f'"later"{end}' if copy.first.suffix == ".json" else "later")
    message = copy.refusal(on_skip=lambda _: None)
    assert "later" in message
    assert str(copy.first) in message
    assert "line 2" in message or "segment 1 of video 'sJFgo9H6zNo'" in message


@of(TIMES)
def test_a_segment_that_ends_where_it_begins_is_reported(copy):
    start, stop = copy.layout.times
    copy.replace(start, stop + ("," if start.endswith(",") else ""))
    message = copy.refusal()
    first, *others = copy.layout.clips
    assert "with a segment that does not end after it begins" in message
    reports = []
    if copy.layout.read is not read_kinetics:  # there the times are part of the id
        assert first in message
    assert [clip.clip_id for clip in copy.read(on_skip=reports.append).clips] == others
    assert reports == [message]


@of([name for name, layout in LAYOUTS.items() if layout.index])
def test_a_class_that_is_no_number_is_located(copy):
    before, index, after = copy.layout.index
    copy.replace(before + index + after, before + "one" + after)
    message = copy.refusal()
    assert f"'{copy.first}', line {2 if copy.layout.columns else 1}: " in message
    assert "is 'one'; it must be a whole number" in message
