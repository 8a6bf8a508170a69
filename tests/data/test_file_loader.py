"""Clips straight from video files: the same as from shards, and for every bad file its reason."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from cast_ray.data.file_loader import FileLoader
from cast_ray.data.loader import ClipLoader, Wanted
from cast_ray.data.manifest import TRAIN, Clip, Manifest
from cast_ray.data.views import Sampling, TestViews
from cast_ray.errors import UserError
from cast_ray.labels import LABEL, LabelMap

CLIPS = Path(__file__).parents[1] / "clips"
VIEW = TestViews(sampling=Sampling(kind="uniform", num_frames=4, stride=2, size=32), temporal_views=2, spatial_crops=3)
WANTED = Wanted(frames=True, frames_per_step=2, sound_columns=100, sound_times=True)
CUT = Clip(clip_id="cut", uri=str(CLIPS / "nasa_with_audio.mp4"), labels=(0,), split=TRAIN, start_s=2.0, stop_s=5.5)


def clip(path: Path) -> Clip:
    return Clip(clip_id=path.name, uri=str(path), labels=(0,), split=TRAIN)


def load(clips: list[Clip], root: str = str(CLIPS), wanted: Wanted = WANTED) -> dict:
    rows = [{name: getattr(clip, name) for name in ("clip_id", "labels", "uri", "start_s", "stop_s")} for clip in clips]
    kinds = {
        "clip_id": pa.string(),
        "labels": pa.list_(pa.int32()),
        "uri": pa.string(),
        "start_s": pa.float64(),
        "stop_s": pa.float64(),
    }
    table = pa.Table.from_pylist(rows, schema=pa.schema(kinds))
    return FileLoader(root=root, view=VIEW, columns=("uri",), wanted=wanted)(table)


def test_a_file_gives_the_clip_that_its_shard_would_give(tmp_path, sharded):
    clips = [*map(clip, sorted(CLIPS.glob("*.m*[4kov]"))), CUT]
    dataset = sharded(Manifest(clips=tuple(clips), label_map=LabelMap({LABEL: ("a",)})), tmp_path)
    expected = ClipLoader(root=dataset.uri, stored=dataset.format, view=VIEW, columns=(), wanted=WANTED)(dataset.index)
    found = load(clips)
    place = {name: row for row, name in enumerate(found["clip_id"].tolist())}
    order = [place[name] for name in expected["clip_id"].tolist()]
    assert expected["valid"].sum() >= 5
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name][order], values, err_msg=name)
    assert found["uri"].tolist() == [each.uri for each in clips]


def test_every_file_that_cannot_be_read_says_why_and_stops_nothing(tmp_path):
    files = {name: tmp_path / name for name in ("empty.mp4", "text.mp4", "cut_short.mp4", "folder.mp4", "missing.mp4")}
    files["empty.mp4"].touch()
    files["text.mp4"].write_text("this is no video")
    files["cut_short.mp4"].write_bytes((CLIPS / "arm_wrestling_k400.mp4").read_bytes()[:20_000])
    files["folder.mp4"].mkdir()
    good = tmp_path / "good.mp4"
    shutil.copy(CLIPS / "arm_wrestling_k400.mp4", good)
    found = load([*map(clip, files.values()), clip(good)], root=str(tmp_path), wanted=Wanted(frames=True))
    reasons = dict(zip(found["clip_id"].tolist(), found["reason"].tolist(), strict=True))
    assert found["valid"].tolist() == [False] * 5 + [True]
    assert reasons["empty.mp4"] == "file is empty"
    assert reasons["text.mp4"] == "Invalid data found when processing input"
    assert reasons["missing.mp4"] == "file does not exist or may not be read"
    assert reasons["folder.mp4"] == "a folder, not a file"
    assert reasons["cut_short.mp4"]
    assert not reasons["good.mp4"]
    assert not found["frames"][:5].any()


def test_a_row_whose_uri_no_storage_can_open_stops_nothing():
    uris = ["s3://bucket/a clip.mp4", "file:///a#1.mp4", "gopher://host/a.mp4", str(CLIPS / "rotated_90.mov")]
    clips = [Clip(clip_id=uri, uri=uri, labels=(0,), split=TRAIN) for uri in uris]
    found = load(clips, root=uris[0], wanted=Wanted(frames=True))
    assert found["valid"].tolist() == [False] * 3 + [True]
    blank, mark, unknown, nothing = found["reason"].tolist()
    assert "has a blank or '#'" in blank
    assert "has a blank or '#'" in mark
    assert "cannot open storage" in unknown
    assert nothing == ""


@pytest.mark.parametrize("name", ["rotated_90.mov", "unordered_timestamps.mov"])
def test_a_video_with_fewer_frames_than_the_network_takes_shows_some_of_them_twice(name):
    """3 and 4 frames; a view takes 4, and with two views along time some come more than once."""
    found = load([clip(CLIPS / name)], wanted=Wanted(frames=True))
    assert found["valid"].tolist() == [True]
    views = found["frames"][0]
    assert all(frame.any() for view in views for frame in view)


def test_a_video_of_two_frames_is_used(tmp_path):
    import av

    with av.open(str(tmp_path / "two.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for value in (60, 200):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), value, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    found = load([clip(tmp_path / "two.mp4")], root=str(tmp_path), wanted=Wanted(frames=True))
    assert found["valid"].tolist() == [True]
    brightness = found["frames"][0].mean(axis=(2, 3, 4))
    assert set(np.round(brightness, -1).reshape(-1)) == {60, 200}


def test_a_storage_that_does_not_answer_is_not_taken_for_bad_files(monkeypatch):
    def outage(*_: object) -> None:
        raise UserError("no access to s3://bucket/a.mp4 after 9 attempts") from OSError("timeout")

    monkeypatch.setattr("cast_ray.data.file_loader.stored_clips", outage)
    with pytest.raises(UserError, match="no access"):
        load([clip(CLIPS / "rotated_90.mov")])
