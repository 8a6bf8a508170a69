"""What a preparation tells at its end."""

from __future__ import annotations

import io
from pathlib import Path
from typing import get_args

import pytest
from rich.console import Console

from cast_ray.data.catalog.layouts import Layout
from cast_ray.data.manifest import Clip, Manifest
from cast_ray.data.media import Facts, Media, MediaFormat, StoredClip
from cast_ray.data.outcome import JOBS, show_outcome
from cast_ray.data.prepare import Preparation
from cast_ray.data.shards import write_index, write_shard
from cast_ray.labels import LabelMap

FACTS = Facts(num_frames=900, fps=25.0, width=1, height=1, video_codec="h264", sound_codec="aac", source="h264 1x1")


def told(folder: Path, *, bad: int, made: int = 100) -> str:
    """The summary of 100 clips of 36 s, `bad` of which are quarantined."""
    clips = [Clip(clip_id=f"c{n}", uri=str(folder / f"{n}.mp4"), labels=(0,), split="train") for n in range(100)]
    stored = [
        StoredClip(clip=clip, reason=f"no frame at {n}")
        if n < bad
        else StoredClip(clip=clip, media=Media(video=b"v" * 1000), facts=FACTS)
        for n, clip in enumerate(clips)
    ]
    for clip in clips:
        Path(clip.uri).write_bytes(b"source")
    manifest = Manifest(clips=tuple(clips), label_map=LabelMap({"label": ("a",)}))
    root = str(folder / "my shards")
    dataset = write_index(root, manifest, MediaFormat(), [write_shard(root, "train/shard-00000.parquet", stored)])
    console = Console(file=io.StringIO(), width=300)
    done = Preparation(dataset=dataset, clips_made=made, source_bytes=1_000_000, seconds=50.0)
    show_outcome(done, "kinetics", console)
    return console.file.getvalue()


def test_the_summary_has_clips_hours_sizes_rate_and_the_next_commands(tmp_path: Path) -> None:
    text = told(tmp_path, bad=0)
    assert [word for word in text.splitlines()[3].split() if word != "│"] == ["train", "100", "0", "0", "1.00"]
    assert "size: 1.0 MB of video files, 100.0 kB stored; per clip 10.0 kB and 1.0 kB" in text
    assert "time: 0:00:50 for 100 clips, 2.0 clips/s" in text
    assert f"cast-ray inspect '{tmp_path}/my shards'" in text
    assert f"python jobs/train_k400.py --shards '{tmp_path}/my shards'" in text
    assert "cannot be used" not in text


def test_quarantined_clips_are_counted_by_reason_and_the_first_ones_named(tmp_path: Path) -> None:
    text = told(tmp_path, bad=7)
    assert "7 of 100 clips (7.0%) cannot be used:" in text
    assert "  7  no frame at #" in text
    assert [n for n in range(100) if f"clip c{n} (" in text] == [0, 1, 2, 3, 4]
    assert "--quarantine" in text
    assert "WARNING" not in text


def test_many_quarantined_clips_are_a_loud_warning(tmp_path: Path) -> None:
    assert "WARNING: that is more than 10% of the clips" in told(tmp_path, bad=11)


def test_a_preparation_that_found_all_done_says_so(tmp_path: Path) -> None:
    assert "nothing was left to do" in told(tmp_path, bad=0, made=0)


@pytest.mark.parametrize("layout", [*get_args(Layout)])
def test_the_named_training_job_exists(layout: str) -> None:
    assert (Path(__file__).parents[2] / "jobs" / f"{JOBS.get(layout, 'train_custom')}.py").is_file()
