"""Shards: what goes in comes out, and what is not complete is not there."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from cast_ray.data import shards
from cast_ray.data.manifest import TRAIN, VALIDATION, Clip, Manifest
from cast_ray.data.shards import (
    ShardedDataset,
    check_writable,
    fingerprint,
    open_dataset,
    read_media,
    shard_plan,
    write_index,
    write_shard,
)
from cast_ray.errors import UserError
from cast_ray.labels import NOUN, VERB, LabelMap

LABELS = LabelMap({VERB: ("take", "put", "öffnen"), NOUN: ("cup", "pan")})
NUM_TRAIN, NUM_VALIDATION = 300, 3


def content(clip: Clip) -> bytes:
    return clip.clip_id.encode() * 3


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    """Files with a few bytes each; shards do not look into them. The splits alternate at first."""
    (tmp_path / "videos").mkdir()
    clips = []
    for number in range(NUM_TRAIN + NUM_VALIDATION):
        split = VALIDATION if number in (1, 3, 5) else TRAIN
        window = {"start_s": number / 4, "stop_s": number / 4 + 1.5} if number % 2 else {}
        clips.append(
            Clip(
                clip_id=f"clip-{number}",
                uri=str(tmp_path / "videos" / f"{number}.mp4"),
                labels=(number % 3, number % 2),
                split=split,
                **window,
            )
        )
        Path(clips[-1].uri).write_bytes(content(clips[-1]))
    return Manifest(clips=tuple(clips), label_map=LABELS)


def write(root: str, manifest: Manifest) -> ShardedDataset:
    for plan in shard_plan(manifest):
        write_shard(root, plan)
    return write_index(root, manifest)


def visible(folder: Path) -> list[str]:
    """Files that a reader would look at."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.suffix in (".parquet", ".json"))


@pytest.mark.parametrize("as_uri", [False, True], ids=["path", "uri"])
def test_a_prepared_dataset_gives_back_every_clip_with_its_video(tmp_path, manifest, as_uri):
    root = (tmp_path / "data").as_uri() if as_uri else str(tmp_path / "data")
    assert open_dataset(root) is None
    written = write(root, manifest)
    opened = open_dataset(root)
    assert opened.label_map == written.label_map == LABELS
    assert opened.fingerprint == written.fingerprint == fingerprint(manifest)
    assert opened.index.equals(written.index)
    for split in (TRAIN, VALIDATION):
        rows = opened.split(split)
        media = read_media(root, rows["shard"].to_pylist(), rows["row"].to_pylist())
        read = [
            Clip(**{name: row[name] for name in ("clip_id", "uri", "split", "start_s", "stop_s")}, labels=tuple(labels))
            for row, labels in zip(rows.to_pylist(), rows["labels"].to_pylist(), strict=True)
        ]
        assert tuple(read) == manifest.split(split)
        assert list(media) == [content(clip) for clip in read]


def test_videos_come_in_any_order_and_as_often_as_asked(tmp_path, manifest):
    dataset = write(str(tmp_path / "data"), manifest)
    rows = dataset.split(TRAIN).to_pylist()
    wanted = np.random.default_rng(0).integers(0, len(rows), 40)
    media = read_media(dataset.uri, [rows[i]["shard"] for i in wanted], [rows[i]["row"] for i in wanted])
    assert list(media) == [content(manifest.split(TRAIN)[i]) for i in wanted]


def test_a_clip_can_be_read_without_reading_its_shard(tmp_path, manifest):
    dataset = write(str(tmp_path / "data"), manifest)
    files = sorted((tmp_path / "data" / TRAIN).glob("*.parquet"))
    assert len(files) > 1
    assert sum(pq.ParquetFile(file).num_row_groups for file in files) == dataset.split(TRAIN).num_rows == NUM_TRAIN


def test_a_missing_video_leaves_no_shard_behind_and_names_the_clip(tmp_path, manifest):
    Path(manifest.clips[4].uri).unlink()
    with pytest.raises(UserError, match=rf"cannot read the video of clip 'clip-4' at {manifest.clips[4].uri}"):
        write(str(tmp_path / "data"), manifest)
    assert visible(tmp_path / "data") == []
    assert open_dataset(str(tmp_path / "data")) is None


def test_a_shard_that_broke_off_in_the_middle_is_never_visible_and_is_written_again(tmp_path, manifest, monkeypatch):
    rows = 0

    class Failing(pq.ParquetWriter):
        def write_table(self, *args, **kwargs):
            nonlocal rows
            rows += 1
            if rows == 260:  # in the second shard
                raise RuntimeError("power failure")
            super().write_table(*args, **kwargs)

    root = str(tmp_path / "data")
    with monkeypatch.context() as patched:
        patched.setattr(shards.pq, "ParquetWriter", Failing)
        with pytest.raises(RuntimeError, match="power failure"):
            write(root, manifest)
    assert visible(tmp_path / "data") == ["train/shard-00000.parquet"]
    assert open_dataset(root) is None

    write(root, manifest)
    rows = open_dataset(root).index
    media = read_media(root, rows["shard"].to_pylist(), rows["row"].to_pylist())
    assert sorted(media) == sorted(content(clip) for clip in manifest.clips)


@pytest.mark.parametrize("file", ["index.parquet", "dataset.json"])
def test_a_dataset_whose_last_files_broke_off_does_not_count_as_complete(tmp_path, manifest, monkeypatch, file):
    root = str(tmp_path / "data")
    for plan in shard_plan(manifest):
        write_shard(root, plan)

    def fail(*args, **kwargs):
        raise RuntimeError("power failure")

    with monkeypatch.context() as patched:
        patched.setattr(*((shards.pq, "write_table") if file == "index.parquet" else (shards.json, "dumps")), fail)
        with pytest.raises(RuntimeError, match="power failure"):
            write_index(root, manifest)
    assert open_dataset(root) is None
    write_index(root, manifest)
    assert open_dataset(root).index.num_rows == NUM_TRAIN + NUM_VALIDATION


def test_a_finished_shard_is_kept_and_its_videos_are_not_read_again(tmp_path, manifest):
    root, plan = str(tmp_path / "data"), shard_plan(manifest)[0]
    size = write_shard(root, plan)
    path = tmp_path / "data" / plan.path
    before = path.stat()
    assert size == before.st_size
    for clip in plan.clips:
        Path(clip.uri).unlink()
    assert write_shard(root, plan) == size
    assert path.stat() == before


def test_a_dataset_of_another_format_version_is_refused(tmp_path, manifest):
    root = tmp_path / "data"
    write(str(root), manifest)
    head = json.loads((root / "dataset.json").read_text())
    (root / "dataset.json").write_text(json.dumps(head | {"format_version": 99}))
    with pytest.raises(
        UserError, match=rf"the dataset at {root} has format version 99, this program reads \d+; prepare"
    ):
        open_dataset(str(root))


def test_an_empty_split_of_a_prepared_dataset_is_refused(tmp_path, manifest):
    only_training = dataclasses.replace(manifest, clips=manifest.split(TRAIN))
    dataset = write(str(tmp_path / "data"), only_training)
    with pytest.raises(UserError, match="has no clips in split 'validation'"):
        dataset.split(VALIDATION)


@pytest.mark.parametrize("uri", ["nowhere://bucket/clips", "://x"])
def test_storage_that_cannot_be_opened_is_refused_with_an_example(uri):
    with pytest.raises(UserError, match=rf"cannot open storage '{uri}': .*s3://bucket/path"):
        open_dataset(uri)


@pytest.mark.parametrize(
    "change",
    [
        {"clip_id": "other"},
        {"uri": "/elsewhere/0.mp4"},
        {"labels": (1, 0)},
        {"split": VALIDATION},
        {"start_s": 0.0},
        {"stop_s": 2.0},
    ],
    ids=lambda change: next(iter(change)),
)
def test_the_fingerprint_knows_everything_about_a_clip(manifest, change):
    changed = (dataclasses.replace(manifest.clips[0], **change), *manifest.clips[1:])
    assert fingerprint(dataclasses.replace(manifest, clips=changed)) != fingerprint(manifest)


def test_the_fingerprint_knows_the_order_and_the_label_map_and_nothing_else(manifest):
    renamed = LabelMap({VERB: ("take", "put", "open"), NOUN: ("cup", "pan")})
    others = [
        dataclasses.replace(manifest, clips=manifest.clips[::-1]),
        dataclasses.replace(manifest, clips=manifest.clips[:-1]),
        dataclasses.replace(manifest, label_map=renamed),
    ]
    assert len({fingerprint(other) for other in [manifest, *others]}) == 4
    assert fingerprint(Manifest(clips=tuple(manifest.clips), label_map=LABELS)) == fingerprint(manifest)


def test_storage_that_can_be_written_is_made_and_left_empty(tmp_path):
    check_writable(str(tmp_path / "new" / "folder"))
    assert list((tmp_path / "new" / "folder").iterdir()) == []


def test_storage_that_cannot_be_written_is_refused_before_any_work(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=rf"cannot write to storage '{tmp_path}/file/runs': .*; give a folder or URI"):
        check_writable(str(tmp_path / "file" / "runs"))
