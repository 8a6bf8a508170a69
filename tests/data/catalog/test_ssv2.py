"""Something-Something-V2's official files: what is read from them, and what is said when they are wrong."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from cast_ray.data.catalog import read_ssv2
from cast_ray.data.manifest import TRAIN, VALIDATION
from cast_ray.errors import UserError
from cast_ray.labels import LABEL

LABELS = {
    "Approaching something with your camera": "0",
    "Putting something on a surface": "2",
    "Holding something next to something": "1",
}
TRAIN_ENTRIES = [
    {
        "id": "78687",
        "label": "holding potato next to vicks vaporub bottle",
        "template": "Holding [something] next to [something]",
        "placeholders": ["potato", "vicks vaporub bottle"],
    },
    {
        "id": "42326",
        "label": "approaching a cup with your camera",
        "template": "Approaching [something] with your camera",
        "placeholders": ["a cup"],
    },
]
VALIDATION_ENTRIES = [
    {
        "id": "74225",
        "label": "putting a pen on a surface",
        "template": "Putting [something] on a surface",
        "placeholders": ["a pen"],
    }
]


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    write(tmp_path, "labels.json", LABELS)
    write(tmp_path, "train.json", TRAIN_ENTRIES)
    write(tmp_path, "validation.json", VALIDATION_ENTRIES)
    (tmp_path / "videos").mkdir()
    for entry in TRAIN_ENTRIES + VALIDATION_ENTRIES:
        (tmp_path / "videos" / f"{entry['id']}.webm").touch()
    return tmp_path


def write(folder: Path, name: str, value: object) -> None:
    folder.joinpath("labels").mkdir(exist_ok=True)
    (folder / "labels" / name).write_text(value if isinstance(value, str) else json.dumps(value))


def read(folder: Path):
    return read_ssv2(folder / "videos", folder / "labels")


def refusal(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        read(folder)
    return str(caught.value)


def test_templates_lose_their_brackets_and_labels_follow_the_index(dataset):
    manifest = read(dataset)
    assert manifest.label_map.names == {
        LABEL: (
            "Approaching something with your camera",
            "Holding something next to something",
            "Putting something on a surface",
        )
    }
    found = {clip.clip_id: (clip.split, clip.labels) for clip in manifest.clips}
    assert found == {"78687": (TRAIN, (1,)), "42326": (TRAIN, (0,)), "74225": (VALIDATION, (2,))}
    assert manifest.clips[0].uri == str(dataset / "videos" / "78687.webm")


def test_uris_are_absolute_even_if_the_folder_was_not(dataset, monkeypatch):
    monkeypatch.chdir(dataset)
    assert all(os.path.isabs(clip.uri) for clip in read_ssv2("videos", "labels").clips)


def test_converted_mp4_files_are_found_and_preferred(dataset):
    (dataset / "videos" / "78687.mp4").touch()
    (dataset / "videos" / "42326.webm").rename(dataset / "videos" / "42326.MP4")
    uris = {clip.clip_id: Path(clip.uri).name for clip in read(dataset).clips}
    assert uris == {"78687": "78687.mp4", "42326": "42326.MP4", "74225": "74225.webm"}


def test_the_file_names_of_the_first_release_are_accepted(dataset):
    for name in ("labels", "train", "validation"):
        path = dataset / "labels" / f"{name}.json"
        path.rename(path.with_name(f"something-something-v2-{name}.json"))
    assert len(read(dataset).clips) == 3


def test_the_video_folder_is_listed_once_however_many_clips_there_are(dataset, monkeypatch):
    calls = []
    scan = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: calls.append(path) or scan(path))
    monkeypatch.setattr(os, "stat", lambda *_, **__: pytest.fail("asked for a single file"))
    monkeypatch.setattr(os.path, "isdir", lambda _: True)
    monkeypatch.setattr(Path, "is_dir", lambda _: True)
    monkeypatch.setattr(Path, "is_file", lambda path: path.name in ("labels.json", "train.json", "validation.json"))
    read(dataset)
    assert len(calls) == 1


@pytest.mark.parametrize("missing", ["videos", "labels"])
def test_a_missing_folder_is_named(dataset, missing):
    shutil.rmtree(dataset / missing)
    assert f"'{dataset / missing}' does not exist" in refusal(dataset)


@pytest.mark.parametrize("name", ["labels.json", "train.json", "validation.json"])
def test_a_missing_annotation_file_is_named(dataset, name):
    (dataset / "labels" / name).unlink()
    assert f"has no {name} or something-something-v2-{name}" in refusal(dataset)


def test_broken_json_is_located(dataset):
    write(dataset, "train.json", '[{"id": "1",\n"template": }]')
    message = refusal(dataset)
    assert "train.json' is not valid JSON (line 2, column 13" in message


def test_text_in_another_encoding_is_refused(dataset):
    (dataset / "labels" / "train.json").write_bytes(b'[{"id": "\xff"}]')
    assert "train.json' is not UTF-8 text" in refusal(dataset)


@pytest.mark.parametrize("value", [{}, [], {"Opening something": "first"}, {"Opening something": None}])
def test_label_files_of_another_form_are_refused(dataset, value):
    write(dataset, "labels.json", value)
    assert "labels.json' must" in refusal(dataset)


@pytest.mark.parametrize(("index", "said"), [("1", r"missing: [2], repeated: [1]"), ("5", "missing: [2]")])
def test_label_indices_must_be_consecutive(dataset, index, said):
    write(dataset, "labels.json", LABELS | {"Putting something on a surface": index})
    assert said in refusal(dataset)


def test_a_template_outside_the_labels_names_the_clip(dataset):
    write(dataset, "train.json", [*TRAIN_ENTRIES, TRAIN_ENTRIES[0] | {"id": "9", "template": "Eating [something]"}])
    message = refusal(dataset)
    assert "train.json', clip 3 of the list (id 9): template 'Eating something' is not in" in message


@pytest.mark.parametrize("entry", ["42", {"id": "42"}, {"template": "Holding [something] next to [something]"}])
def test_entries_of_another_form_are_refused(dataset, entry):
    write(dataset, "validation.json", [entry])
    assert "validation.json', clip 1 of the list: must be an object with 'id' and 'template'" in refusal(dataset)


def test_a_file_that_is_not_a_list_is_refused(dataset):
    write(dataset, "train.json", {"78687": "Holding"})
    assert "train.json' must be a JSON list of clips, it is a dict" in refusal(dataset)


@pytest.mark.parametrize("split", [TRAIN, VALIDATION])
def test_an_empty_split_is_refused(dataset, split):
    write(dataset, f"{split}.json", [])
    assert f"{split}.json' has no clips" in refusal(dataset)


def test_missing_videos_are_counted_and_the_first_five_named(dataset):
    entries = [TRAIN_ENTRIES[0] | {"id": str(number)} for number in range(100, 107)]
    write(dataset, "train.json", TRAIN_ENTRIES + entries)
    message = refusal(dataset)
    assert "names 7 clips of 9 that have no video file" in message
    assert "100, 101, 102, 103, 104 ...;" in message


def test_a_clip_in_both_splits_is_refused(dataset):
    write(dataset, "validation.json", TRAIN_ENTRIES[:1])
    assert "validation.json' has 1 clips of 1 with an id that an earlier clip has: 78687" in refusal(dataset)
