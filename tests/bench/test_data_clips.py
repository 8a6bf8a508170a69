"""The clips that pipelines are compared on: alike, as files and as shards, damaged ones left out."""

from __future__ import annotations

from pathlib import Path

import av
import pytest

from cast_ray.bench.data_clips import KINDS, Kind, make_inputs, videos_in
from cast_ray.data.manifest import TRAIN
from cast_ray.data.shards import open_complete
from cast_ray.errors import UserError

CLIPS = Path(__file__).parents[1] / "clips"
SHORT = Kind(seconds=0.5, fps=12)


def test_files_and_shards_hold_the_same_clips(tmp_path):
    videos = [CLIPS / "arm_wrestling_k400.mp4", CLIPS / "rotated_90.mov", CLIPS / "flipping_pancake_k400.mkv"]
    inputs = make_inputs(videos, tmp_path / "made", SHORT, clips=5)
    assert [each["name"] for each in inputs.described["videos"]] == [videos[0].name, videos[2].name]
    for file in inputs.files:
        with av.open(file) as container:
            stream = container.streams.video[0]
            assert (stream.codec_context.name, stream.width, stream.height) == ("h264", 340, 256)
            assert (stream.average_rate, sum(1 for _ in container.decode(stream))) == (12, 6)
    assert set(inputs.datasets) == {"original", "short-gop", "jpeg"}
    for root in inputs.datasets.values():
        rows = open_complete(root).split(TRAIN)
        assert rows["clip_id"].to_pylist() == [Path(file).stem for file in inputs.files]
        assert rows["num_frames"].to_pylist() == [6] * 5


def test_the_original_shards_hold_the_very_files(tmp_path):
    inputs = make_inputs([CLIPS / "arm_wrestling_k400.mp4"], tmp_path / "made", SHORT, clips=2)
    rows = open_complete(inputs.datasets["original"]).split(TRAIN)
    assert rows["bytes"].to_pylist() == [Path(file).stat().st_size for file in inputs.files]


def test_without_a_frame_rate_that_of_the_source_stays(tmp_path):
    inputs = make_inputs([CLIPS / "arm_wrestling_k400.mp4"], tmp_path / "made", Kind(seconds=0.5, fps=None), clips=1)
    assert inputs.described["videos"] == [{"name": "arm_wrestling_k400.mp4", "frames": 14, "fps": 28.0}]


def test_videos_that_are_all_too_short_or_damaged_are_told(tmp_path):
    with pytest.raises(UserError, match="none of 2 videos has 10 s"):
        make_inputs([CLIPS / "rotated_90.mov", CLIPS / "corrupted.mp4"], tmp_path / "made", KINDS["kinetics"], clips=1)


def test_a_folder_without_videos_is_told(tmp_path):
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(UserError, match="--clips"):
            videos_in(folder)
