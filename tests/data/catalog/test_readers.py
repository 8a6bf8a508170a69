"""All readers: what each gets from files in the official layout, and what all say when such files are wrong."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cast_ray.data import catalog
from cast_ray.data.manifest import Manifest
from cast_ray.errors import UserError


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


def layout_of(values: dict) -> Layout:
    """A layout as layouts.json has it; JSON knows no tuples."""
    tuples = {name: tuple(values[name]) for name in ("videos", "times", "columns", "index") if name in values}
    clips = {clip_id: tuple(clip) for clip_id, clip in values["clips"].items()}
    return Layout(**{**values, **tuples, "clips": clips, "read": getattr(catalog, values["read"])})


LAYOUTS = {
    name: layout_of(values) for name, values in json.loads(Path(__file__).with_name("layouts.json").read_text()).items()
}
"""One per dataset, in the exact layout of its official files."""

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
    if copy.layout.read is not catalog.read_kinetics:  # there the times are part of the id
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
