"""Whatever way a clip is stored, the report gets a small video with its frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import simplejpeg

from cast_ray.data.decode import open_video
from cast_ray.data.manifest import VALIDATION, Clip, Manifest
from cast_ray.data.media import MediaFormat
from cast_ray.labels import LABEL, LabelMap
from cast_ray.report.playable import SMALL_BYTES, playable, videos_of

CLIPS = Path(__file__).parents[1] / "clips"


@pytest.mark.parametrize("kind", ["original", "short-gop", "jpeg"])
def test_a_stored_clip_plays(kind, tmp_path, sharded):
    files = ("unordered_timestamps.mov", "flipping_pancake_k400.mkv")
    clips = tuple(Clip(clip_id=name, uri=str(CLIPS / name), labels=(0,), split=VALIDATION) for name in files)
    manifest = Manifest(clips=clips, label_map=LabelMap({LABEL: ("one",)}))
    dataset = sharded(
        manifest, tmp_path, MediaFormat(video=kind, sound="none", frame_rate=8 if kind == "jpeg" else None)
    )
    for clip_id, video in videos_of(dataset, files).items():
        stored = kind == "original" and clip_id == "unordered_timestamps.mov"
        assert video.mime == "video/mp4"
        assert (video.data == (CLIPS / clip_id).read_bytes()) == stored, "small files stay as they are"
        assert len(video.data) <= SMALL_BYTES
        shown, source = open_video(video.data), open_video((CLIPS / clip_id).read_bytes())
        assert shown.num_frames / shown.fps == pytest.approx(source.num_frames / source.fps, abs=0.2)
        first = shown.frames([0])[0], source.frames([0])[0]
        assert np.abs(first[0].mean((0, 1)) - first[1].mean((0, 1))).max() < 4
        assert simplejpeg.is_jpeg(video.poster)


def test_only_the_segment_of_a_stored_file_is_shown(tmp_path, sharded):
    file = CLIPS / "flipping_pancake_k400.mkv"
    source = open_video(file.read_bytes())
    segment = Clip(clip_id="x", uri=str(file), labels=(0,), split=VALIDATION, start_s=2.0, stop_s=3.0)
    dataset = sharded(Manifest(clips=(segment,), label_map=LabelMap({LABEL: ("one",)})), tmp_path)
    shown = open_video(videos_of(dataset, ["x"])["x"].data)
    assert shown.num_frames / shown.fps == pytest.approx(1.0, abs=0.1)
    expected = source.frames([round(2.0 * source.fps)])[0].mean((0, 1))
    np.testing.assert_allclose(shown.frames([0])[0].mean((0, 1)), expected, atol=4)


def test_a_quarantined_clip_has_no_video(tmp_path, sharded):
    (tmp_path / "x.mp4").write_bytes(b"no video")
    clip = Clip(clip_id="x", uri=str(tmp_path / "x.mp4"), labels=(0,), split=VALIDATION)
    dataset = sharded(Manifest(clips=(clip,), label_map=LabelMap({LABEL: ("one",)})), tmp_path / "shards")
    assert playable(dataset, dataset.index.to_pylist()[0]) is None
