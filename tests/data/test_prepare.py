"""A preparation before its first task: what is refused, and what of an earlier one is kept."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from cast_ray.data import prepare as preparing
from cast_ray.data.manifest import Clip, Manifest
from cast_ray.data.media import MediaFormat
from cast_ray.data.prepare import prepare, prepare_run
from cast_ray.data.shards import open_complete, shard_plan
from cast_ray.errors import UserError
from cast_ray.labels import LabelMap

FORMAT = MediaFormat()
QUIET = Console(quiet=True)


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever needs Ray fails."""

    def fail(*args: object, **kwargs: object) -> None:
        raise AssertionError("a task was started")

    monkeypatch.setattr(preparing, "_shards", fail)


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    clips = [Clip(clip_id=str(n), uri=str(tmp_path / f"{n}.mp4"), labels=(0,), split="train") for n in range(6)]
    for clip in clips:
        Path(clip.uri).write_bytes(b"no video, as nothing looks into it")
    return Manifest(clips=tuple(clips), label_map=LabelMap({"label": ("a",)}))


def begin(manifest: Manifest, root: Path, **options) -> None:
    """A preparation that stops before its first task."""
    with pytest.raises(AssertionError, match="a task was started"):
        prepare(manifest, str(root), FORMAT, QUIET, **options)


def test_a_dataset_without_clips_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there are no clips to prepare"):
        prepare(Manifest(clips=(), label_map=LabelMap({"label": ("a",)})), str(tmp_path), FORMAT, QUIET)


def test_missing_videos_are_reported_before_any_work(tmp_path: Path, manifest: Manifest) -> None:
    for clip in manifest.clips[:4]:
        Path(clip.uri).unlink()
    with pytest.raises(UserError, match=rf"4 of 6 video files are not there, for example {manifest.clips[0].uri}"):
        prepare(manifest, str(tmp_path / "data"), FORMAT, QUIET)
    assert list((tmp_path / "data").iterdir()) == []


def test_storage_that_cannot_be_written_is_reported_before_any_work(tmp_path: Path, manifest: Manifest) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=f"cannot write to storage '{tmp_path}/file/data'"):
        prepare(manifest, str(tmp_path / "file" / "data"), FORMAT, QUIET)


def test_a_folder_of_another_preparation_is_refused_with_the_difference(tmp_path: Path, manifest: Manifest) -> None:
    root = tmp_path / "data"
    begin(manifest, root)
    begin(manifest, root)
    with pytest.raises(UserError, match=r"\(clips_per_shard 256 instead of 8\); give another folder, or rem"):
        prepare(manifest, str(root), FORMAT, QUIET, clips_per_shard=8)
    with pytest.raises(UserError, match=r"\(video original instead of jpeg, sound original instead of none, finger"):
        prepare(manifest, str(root), MediaFormat(video="jpeg", sound="none"), QUIET)
    Path(manifest.clips[0].uri).write_bytes(b"another video")
    with pytest.raises(UserError, match=r"of other clips or of another format \(fingerprint \w+ instead of \w+\)"):
        prepare(manifest, str(root), FORMAT, QUIET)


@pytest.mark.parametrize("content", ["{", "3"])
def test_a_damaged_mark_is_named(tmp_path: Path, manifest: Manifest, content: str) -> None:
    begin(manifest, tmp_path / "data")
    (tmp_path / "data" / "preparation.json").write_text(content)
    with pytest.raises(UserError, match=rf"preparation.json of {tmp_path}/data is damaged .*; remove that folder"):
        prepare(manifest, str(tmp_path / "data"), FORMAT, QUIET)


def test_a_complete_dataset_is_not_touched_and_needs_no_task(tmp_path: Path, manifest: Manifest, sharded) -> None:
    root = tmp_path / "data"
    begin(manifest, root)
    sharded(manifest, root)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}
    done = prepare(manifest, str(root), FORMAT, QUIET)
    assert (done.clips_made, done.source_bytes) == (0, 6 * 34)
    assert done.dataset.index.equals(open_complete(str(root)).index)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()} == before


def test_a_run_keeps_shards_under_the_fingerprint_of_their_clips(tmp_path: Path, manifest: Manifest, sharded) -> None:
    with pytest.raises(AssertionError, match="a task was started"):
        prepare_run(manifest, str(tmp_path / "runs"), QUIET)
    (folder,) = (tmp_path / "runs" / "shards").iterdir()
    sharded(manifest, folder)
    console = Console(file=io.StringIO())
    assert prepare_run(manifest, str(tmp_path / "runs"), console).uri == str(folder)
    assert "6 clips" in console.file.getvalue()
    assert "prepared before" in console.file.getvalue()


def test_time_limit_and_verification_may_change_when_a_preparation_is_continued(
    tmp_path: Path, manifest: Manifest
) -> None:
    begin(manifest, tmp_path / "data")
    with pytest.raises(AssertionError, match="a task was started"):
        prepare(manifest, str(tmp_path / "data"), MediaFormat(verify=True, time_limit_s=999.0), QUIET)


def test_a_run_looks_at_its_video_files_once(
    tmp_path: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def counted(name: str, work: Callable) -> Callable:
        return lambda *arguments: (calls.append(name), work(*arguments))[1]

    for name in ("source_sizes", "fingerprint"):
        monkeypatch.setattr(preparing, name, counted(name, getattr(preparing, name)))
    with pytest.raises(AssertionError, match="a task was started"):
        prepare_run(manifest, str(tmp_path / "runs"), QUIET)
    assert calls == ["source_sizes", "fingerprint"]


def test_clips_known_to_be_deadly_are_quarantined_without_a_look(manifest: Manifest) -> None:
    stored = list(preparing._stored(manifest.clips, FORMAT, {"0", "3"}))
    assert [clip.clip.clip_id for clip in stored] == [clip.clip_id for clip in manifest.clips]
    assert [clip.clip.clip_id for clip in stored if "crashes" in clip.reason] == ["0", "3"]
    assert all(clip.quarantined for clip in stored)


def test_finished_shards_are_counted_and_what_a_killed_job_left_is_removed(tmp_path: Path, manifest: Manifest) -> None:
    plans = shard_plan(manifest, 2)
    (tmp_path / "train").mkdir()
    for name in (plans[0].path, plans[2].path, f"{plans[1].path}.0123.part", "dataset.json.0123.part"):
        (tmp_path / name).touch()
    console = Console(file=io.StringIO())
    assert preparing._already(str(tmp_path), plans, console) == 4
    assert "continuing: 2 of 3 shards are there" in console.file.getvalue()
    preparing._remove_partial(str(tmp_path))
    # What another job is just about to complete stays.
    assert {path.name for path in tmp_path.rglob("*.part")} == {"dataset.json.0123.part"}
    assert len(list((tmp_path / "train").iterdir())) == 2
