"""Whatever way a clip is stored, the report gets a video with its frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cast_ray.data.decode import open_video
from cast_ray.data.manifest import VALIDATION, Clip, Manifest
from cast_ray.data.media import MediaFormat
from cast_ray.evaluation.playable import playable
from cast_ray.labels import LABEL, LabelMap

CLIPS = Path(__file__).parents[1] / "clips"


@pytest.mark.parametrize("kind", ["original", "short-gop", "jpeg"])
def test_a_stored_clip_plays(kind, tmp_path, sharded):
    files = ("unordered_timestamps.mov", "flipping_pancake_k400.mkv")
    clips = tuple(Clip(clip_id=name, uri=str(CLIPS / name), labels=(0,), split=VALIDATION) for name in files)
    manifest = Manifest(clips=clips, label_map=LabelMap({LABEL: ("one",)}))
    dataset = sharded(
        manifest, tmp_path, MediaFormat(video=kind, sound="none", frame_rate=8 if kind == "jpeg" else None)
    )
    for row in dataset.index.to_pylist():
        video = playable(dataset, row)
        matroska = kind == "original" and row["clip_id"].endswith(".mkv")
        assert video.mime == ("video/webm" if matroska else "video/mp4")
        shown, source = open_video(video.data), open_video((CLIPS / row["clip_id"]).read_bytes())
        assert shown.num_frames / shown.fps == pytest.approx(source.num_frames / source.fps, abs=0.2)
        first = shown.frames([0])[0], source.frames([0])[0]
        assert np.abs(first[0].mean((0, 1)) - first[1].mean((0, 1))).max() < 4


def test_a_quarantined_clip_has_no_video(tmp_path, sharded):
    (tmp_path / "x.mp4").write_bytes(b"no video")
    clip = Clip(clip_id="x", uri=str(tmp_path / "x.mp4"), labels=(0,), split=VALIDATION)
    dataset = sharded(Manifest(clips=(clip,), label_map=LabelMap({LABEL: ("one",)})), tmp_path / "shards")
    assert playable(dataset, dataset.index.to_pylist()[0]) is None
