"""A run's folder is enough for a report of it later."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from cast_ray.errors import UserError
from cast_ray.evaluation.predictions import write_predictions
from cast_ray.report.keep import DATA_FILE, write_kept
from cast_ray.report.record import Video
from cast_ray.report.source import ATTENTION, read_run


@pytest.fixture
def kept(three_runs, tmp_path):
    run = dataclasses.replace(
        three_runs[2],
        dataset="s3://bucket/shards",
        videos={"clip-1": Video(data=b"one", poster=b"jpeg"), "clip-2": Video(data=b"two", mime="video/webm")},
    )
    folder = tmp_path / "run"
    folder.mkdir()
    write_predictions(folder / "predictions.parquet", run.predictions)
    (folder / "config.json").write_text(json.dumps(run.config))
    write_kept(run, folder)
    return folder, run


def test_what_is_kept_comes_back(kept):
    folder, run = kept
    again = read_run(str(folder))
    for field in ("name", "config", "history", "videos", "quarantined", "seconds", "dataset", "attention"):
        assert getattr(again, field) == getattr(run, field), field
    for name, counts in run.training_clips.items():
        np.testing.assert_array_equal(again.training_clips[name], counts)
    assert again.predictions.clip_ids == run.predictions.clip_ids
    assert read_run(str(folder), "other").name == "other"


def test_predictions_alone_are_a_run_of_which_nothing_else_is_known(kept, tmp_path):
    folder, _ = kept
    (folder / "predictions.parquet").rename(tmp_path / "other.parquet")
    again = read_run(str(tmp_path / "other.parquet"))
    assert again.name == "other"
    assert not any((again.config, again.history, again.videos, again.training_clips))
    assert again.quarantined is again.seconds is again.dataset is None


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.pop("history"),
        lambda content: content["training_clips"].update(verb=[1]),
        lambda content: content["examples"].update({"clip-1": {"video": "../secret.mp4"}}),
        lambda content: content["examples"].update({"clip-1": {"video": "0000.exe"}}),
        lambda content: content.update(quarantined=[["one"]]),
    ],
)
def test_damaged_content_is_named(kept, change):
    folder, _ = kept
    content = json.loads((folder / DATA_FILE).read_text())
    change(content)
    (folder / DATA_FILE).write_text(json.dumps(content))
    with pytest.raises(UserError, match=f"{DATA_FILE} of the run .* is damaged"):
        read_run(str(folder))


def test_attention_is_read_with_its_pictures(kept):
    folder, _ = kept
    (folder / ATTENTION).mkdir()
    (folder / ATTENTION / "a.png").write_bytes(b"png")
    entry = {"clip_id": "clip-1", "title": "T to S", "file": "a.png", "caption": "words"}
    (folder / ATTENTION / "index.json").write_text(json.dumps([entry]))
    (folder / ATTENTION / "entropy.json").write_text(json.dumps({"T to S": [None, 0.5]}))
    attention = read_run(str(folder)).attention
    assert attention.entropy == {"T to S": [None, 0.5]}
    (picture,) = attention.pictures
    assert (picture.data, picture.mime, picture.caption) == (b"png", "image/png", "words")


@pytest.mark.parametrize("file", ["../a.png", "a.svg"])
def test_attention_with_strange_files_is_refused(kept, file):
    folder, _ = kept
    (folder / ATTENTION).mkdir()
    entry = {"clip_id": "clip-1", "title": "t", "file": file, "caption": "c"}
    (folder / ATTENTION / "index.json").write_text(json.dumps([entry]))
    (folder / ATTENTION / "a.svg").write_bytes(b"")
    with pytest.raises(UserError, match=r"index\.json must list objects"):
        read_run(str(folder))
