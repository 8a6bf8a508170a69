"""Layouts by name: the right reader, and arguments that do not go with a layout refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest

from cast_ray.data import catalog
from cast_ray.data.catalog.counts import PUBLISHED
from cast_ray.data.catalog.layouts import Layout, count_remark, read_layout
from cast_ray.data.manifest import TRAIN, VALIDATION, Clip, Manifest
from cast_ray.errors import UserError
from cast_ray.labels import LABEL, LabelMap

FILES = json.loads(Path(__file__).with_name("layouts.json").read_text())


@pytest.mark.parametrize("name", list(FILES))
def test_a_layout_is_read_by_the_reader_of_its_name(name: str, tmp_path: Path) -> None:
    values = FILES[name]
    (tmp_path / "annotations").mkdir()
    for file, text in values["files"].items():
        (tmp_path / "annotations" / file).write_text(text)
    for video in values["videos"]:
        (tmp_path / "videos" / video).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "videos" / video).touch()
    read = getattr(catalog, values["read"])
    folders = (str(tmp_path / "videos"), str(tmp_path / "annotations"))
    left_out: list[str] = []
    settings = {} if "split" not in values.get("settings", {}) else {"split": values["settings"]["split"]}
    manifest = read_layout(values["read"].removeprefix("read_"), *folders, on_skip=left_out.append, **settings)
    assert manifest == read(*folders, on_skip=[].append, **settings)


def test_every_layout_is_that_of_a_reader_of_the_catalogue() -> None:
    assert {f"read_{layout}" for layout in get_args(Layout)} == {
        name for name in catalog.__all__ if name.startswith("read_")
    }


def test_one_folder_per_class_has_no_annotations_and_a_table_has(tmp_path: Path) -> None:
    for split in ("train", "validation"):
        (tmp_path / split / "fall").mkdir(parents=True)
        (tmp_path / split / "fall" / f"{split}.mp4").touch()
        (tmp_path / f"{split}.csv").write_text(f"clip,label\n{split}/fall/{split}.mp4,fall\n")
    folder = str(tmp_path)
    assert [clip.split for clip in read_layout("folders", folder, None).clips] == [TRAIN, VALIDATION]
    assert [clip.split for clip in read_layout("table", folder, folder).clips] == [TRAIN, VALIDATION]
    with pytest.raises(UserError, match="but the layout is 'folders': its classes are the folders; leave it away"):
        read_layout("folders", folder, folder)
    for layout in ("table", "ssv2"):
        with pytest.raises(UserError, match=f"annotations are not given, but the layout is '{layout}'"):
            read_layout(layout, folder, None)


@pytest.mark.parametrize("layout", ["folders", "table"])
def test_clips_of_ones_own_can_be_left_out_too(layout: str, tmp_path: Path) -> None:
    for split in ("train", "validation"):
        (tmp_path / split / "fall").mkdir(parents=True)
        (tmp_path / split / "fall" / f"{split}.mp4").touch()
        rows = f"{split}/fall/{split}.mp4,fall\n{split}/fall/gone.mp4,fall\n"
        (tmp_path / f"{split}.csv").write_text(f"clip,label\n{rows}")
    (tmp_path / "train" / "fall" / "notes.doc").touch()
    reports: list[str] = []
    manifest = read_layout(layout, str(tmp_path), str(tmp_path) if layout == "table" else None, on_skip=reports.append)
    assert len(manifest.clips) == 2
    assert len(reports) == (2 if layout == "table" else 1)


def test_a_numbered_split_goes_with_ucf101_alone() -> None:
    with pytest.raises(UserError, match="split is 2, but the layout is 'ssv2': only ucf101"):
        read_layout("ssv2", "videos", "annotations", split=2)


@pytest.mark.parametrize(
    ("layout", "split", "published"),
    [
        ("kinetics", None, "kinetics400"),
        ("ucf101", None, "ucf101-1"),
        ("ucf101", 3, "ucf101-3"),
        ("ssv2", None, "ssv2"),
    ],
)
def test_clips_are_counted_against_the_numbers_of_the_dataset(layout: str, split: int | None, published: str) -> None:
    names = tuple(str(number) for number in range(PUBLISHED[published].classes[LABEL]))
    clip = Clip(clip_id="1", uri="1.mp4", labels=(0,), split=TRAIN)
    manifest = Manifest(clips=(clip,), label_map=LabelMap({LABEL: names}))
    remark = count_remark(layout, manifest, split=split)
    assert f"1 train clips instead of {PUBLISHED[published].clips[TRAIN]:,}" in remark
    assert count_remark("table", manifest) is None
