"""Shards: what goes in comes out, and what is not complete or not as it was written is not taken for it."""

from __future__ import annotations

import dataclasses
import itertools
import json
import random
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cast_ray.data import shards
from cast_ray.data.manifest import TRAIN, VALIDATION, Clip, Manifest
from cast_ray.data.media import Facts, Media, MediaFormat, StoredClip
from cast_ray.data.shards import (
    ShardedDataset,
    fingerprint,
    finished_shard,
    open_complete,
    open_dataset,
    read_media,
    shard_plan,
    write_index,
    write_shard,
)
from cast_ray.data.storage import joined
from cast_ray.errors import UserError
from cast_ray.labels import NOUN, VERB, LabelMap

LABELS = LabelMap({VERB: ("take", "put", "öffnen"), NOUN: ("cup", "pan")})
NUM_TRAIN, NUM_VALIDATION = 40, 3
PER_SHARD = 16
FORMAT = MediaFormat()
FACTS = Facts(num_frames=60, fps=12.5, width=340, height=256, video_codec="h264", sound_codec="", source="vp9 427x240")
QUARANTINED = "clip-7"


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    """Files with a few bytes each; shards do not look into them. The splits alternate at first."""
    (tmp_path / "videos").mkdir()
    clips = []
    for number in range(NUM_TRAIN + NUM_VALIDATION):
        split = VALIDATION if number in (1, 3, 5) else TRAIN
        window = {"start_s": number / 4, "stop_s": number / 4 + 1.5} if number % 2 else {}
        uri = str(tmp_path / "videos" / f"{number}.mp4")
        clips.append(
            Clip(clip_id=f"clip-{number}", uri=uri, labels=(number % 3, number % 2), split=split, **window),
        )
        Path(uri).write_bytes(b"video")
    return Manifest(clips=tuple(clips), label_map=LABELS)


def media(clip: Clip) -> Media:
    """Encoded video, video and sound apart, frames and sound, or sound alone."""
    name = clip.clip_id.encode()
    number = int(clip.clip_id.removeprefix("clip-"))
    sound = b"sound of " + name
    frames = tuple(name * (frame % 7) for frame in range(number * 50))
    kinds = [
        Media(video=name * 1000),
        Media(video=name * 3, sound=sound),
        Media(frames=frames, sound=sound),
        Media(sound=sound),
    ]
    return kinds[number % len(kinds)]


def stored(clips: Sequence[Clip]) -> Iterator[StoredClip]:
    for clip in clips:
        if clip.clip_id == QUARANTINED:
            yield StoredClip(clip=clip, reason="no frame can be decoded")
        else:
            yield StoredClip(clip=clip, media=media(clip), facts=FACTS, start_s=0.25, stop_s=clip.stop_s)


def write(root: str, manifest: Manifest) -> ShardedDataset:
    plans = shard_plan(manifest, PER_SHARD)
    return write_index(root, manifest, FORMAT, [write_shard(root, plan.path, stored(plan.clips)) for plan in plans])


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def check_content(dataset: ShardedDataset, manifest: Manifest) -> None:
    """Every row is its clip's, with its media."""
    rows = dataset.index.to_pylist()
    assert sorted(row["clip_id"] for row in rows) == sorted(clip.clip_id for clip in manifest.clips)
    clips = {clip.clip_id: clip for clip in manifest.clips}
    for row in rows:
        clip = clips[row["clip_id"]]
        assert (tuple(row["labels"]), row["split"], row["uri"]) == (clip.labels, clip.split, clip.uri)
        assert (row["source_start_s"], row["source_stop_s"]) == (clip.start_s, clip.stop_s)
        found = read_media(dataset.uri, row["shard"], row["place"])
        if row["clip_id"] == QUARANTINED:
            assert (row["reason"], row["num_frames"], row["bytes"]) == ("no frame can be decoded", None, 0)
            assert found == Media()
        else:
            assert {name: row[name] for name in dataclasses.asdict(FACTS)} == dataclasses.asdict(FACTS)
            assert (row["start_s"], row["stop_s"], row["bytes"]) == (0.25, clip.stop_s, found.size)
            assert found == media(clip)


@pytest.mark.parametrize("kind", ["path", "uri", "s3", "gs"])
def test_a_prepared_dataset_gives_back_every_clip_with_its_media(tmp_path, manifest, kind, s3_bucket, gcs_bucket):
    folder = tmp_path / "data"
    remote = {"s3": joined(s3_bucket, "some", "data"), "gs": joined(gcs_bucket, "some", "data")}
    root = ({"path": str(folder), "uri": folder.as_uri()} | remote)[kind]
    assert open_dataset(root) is None
    written = write(root, manifest)
    opened = open_dataset(root)
    assert opened is not None
    assert opened.label_map == written.label_map == LABELS
    assert opened.fingerprint == written.fingerprint == fingerprint(manifest, FORMAT)
    assert opened.format == FORMAT
    assert opened.index.equals(written.index)
    check_content(opened, manifest)
    assert opened.split(TRAIN).num_rows == NUM_TRAIN
    assert opened.quarantined["clip_id"].to_pylist() == [QUARANTINED]


def test_the_index_of_shards_that_were_there_is_that_of_new_ones(tmp_path, manifest):
    dataset = write(str(tmp_path / "data"), manifest)
    again = [finished_shard(dataset.uri, plan.path) for plan in shard_plan(manifest, PER_SHARD)]
    assert write_index(dataset.uri, manifest, FORMAT, again).index.equals(dataset.index)
    assert finished_shard(dataset.uri, "train/shard-00009.parquet") is None


def test_a_shard_is_plain_parquet_that_any_reader_understands(tmp_path, manifest):
    write(str(tmp_path / "data"), manifest)
    rows = pq.read_table(tmp_path / "data" / TRAIN / "shard-00000.parquet").to_pylist()
    assert len(rows) == PER_SHARD
    for row in rows:
        clip = next(clip for clip in manifest.clips if clip.clip_id == row["clip_id"])
        expected = Media() if clip.clip_id == QUARANTINED else media(clip)
        frames = None if row["frames"] is None else tuple(row["frames"])
        assert Media(video=row["video"], frames=frames, sound=row["sound"]) == expected


def test_only_the_media_that_are_asked_for_are_read(tmp_path, manifest):
    dataset = write(str(tmp_path / "data"), manifest)
    for row in dataset.index.to_pylist():
        for columns in (("video",), ("frames",), ("sound",), ("video", "frames"), ()):
            whole = read_media(dataset.uri, row["shard"], row["place"])
            part = {name: getattr(whole, name) for name in columns}
            assert read_media(dataset.uri, row["shard"], row["place"], columns) == Media(**part)


def test_many_threads_read_at_once(tmp_path, manifest):
    dataset = write(str(tmp_path / "data"), manifest)
    clips = {clip.clip_id: clip for clip in manifest.clips}
    rows = [row for row in dataset.index.to_pylist() if row["clip_id"] != QUARANTINED] * 20
    random.Random(0).shuffle(rows)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda row: read_media(dataset.uri, row["shard"], row["place"]), rows))
    assert found == [media(clips[row["clip_id"]]) for row in rows]


def test_a_clip_costs_one_read_of_its_media(tmp_path, manifest):
    """Bytes read from files by this process, as the kernel counts them."""
    dataset = write(str(tmp_path / "data"), manifest)
    row = next(row for row in dataset.index.to_pylist() if row["clip_id"] == "clip-12")
    read_media(dataset.uri, row["shard"], row["place"])  # the shard is open now

    def counted() -> tuple[int, int]:
        figures = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
        return int(figures["rchar"]), int(figures["syscr"])

    bare = [counted(), counted()]
    read_media(dataset.uri, row["shard"], row["place"])
    after = counted()
    bytes_read, calls = (after[i] - bare[1][i] - (bare[1][i] - bare[0][i]) for i in (0, 1))
    assert bytes_read <= row["bytes"] + 64
    assert calls <= 2


def test_clips_of_one_recording_are_neighbours_and_splits_stay_apart():
    clips = [
        Clip(clip_id=f"{number}", uri=f"{number % 3}.mp4", labels=(0,), split=TRAIN if number % 4 else VALIDATION)
        for number in range(40)
    ]
    plans = shard_plan(Manifest(clips=tuple(clips), label_map=LabelMap({"label": ("a",)})), 8)
    assert sorted(clip.clip_id for plan in plans for clip in plan.clips) == sorted(clip.clip_id for clip in clips)
    for split in (TRAIN, VALIDATION):
        mine = [plan for plan in plans if plan.path.startswith(f"{split}/")]
        assert len({plan.path for plan in mine}) == len(mine)
        assert all(len(plan.clips) == 8 for plan in mine[:-1])
        uris = [clip.uri for plan in mine for clip in plan.clips]
        changes = sum(before != after for before, after in itertools.pairwise(uris))
        assert changes == len(set(uris)) - 1
        assert {clip.split for plan in mine for clip in plan.clips} == {split}


# What is not complete


def test_a_shard_that_broke_off_in_the_middle_is_never_visible_and_is_written_again(tmp_path, manifest):
    def failing(clips: Sequence[Clip]) -> Iterator[StoredClip]:
        yield from stored(clips[:5])
        raise RuntimeError("power failure")

    root, plans = str(tmp_path / "data"), shard_plan(manifest, PER_SHARD)
    write_shard(root, plans[0].path, stored(plans[0].clips))
    with pytest.raises(RuntimeError, match="power failure"):
        write_shard(root, plans[1].path, failing(plans[1].clips))
    assert files(tmp_path / "data") == [plans[0].path]
    assert open_dataset(root) is None
    with pytest.raises(
        UserError, match=rf"no complete prepared dataset at '{root}'; .* run the same preparation again"
    ):
        open_complete(root)
    check_content(write(root, manifest), manifest)


@pytest.mark.parametrize("file", ["index.parquet", "dataset.json"])
def test_a_dataset_whose_last_files_broke_off_does_not_count_as_complete(tmp_path, manifest, monkeypatch, file):
    root = str(tmp_path / "data")
    rows = [write_shard(root, plan.path, stored(plan.clips)) for plan in shard_plan(manifest, PER_SHARD)]
    whole = shards.written_whole

    def failing(storage, path, **options):
        if path.endswith(file):
            raise RuntimeError("power failure")
        return whole(storage, path, **options)

    with monkeypatch.context() as patched:
        patched.setattr(shards, "written_whole", failing)
        with pytest.raises(RuntimeError, match="power failure"):
            write_index(root, manifest, FORMAT, rows)
    assert open_dataset(root) is None
    write_index(root, manifest, FORMAT, rows)
    check_content(open_complete(root), manifest)


def test_a_full_disk_leaves_nothing_half_written_and_keeps_what_is_complete(tmp_path, manifest, monkeypatch):
    """The disk is /dev/full, which has no space left: the system says so, not a mock."""
    root, plans = str(tmp_path / "data"), shard_plan(manifest, PER_SHARD)
    write_shard(root, plans[0].path, stored(plans[0].clips))
    before = (tmp_path / "data" / plans[0].path).read_bytes()
    name = uuid.uuid4()
    (tmp_path / "data" / f"{plans[1].path}.{name.hex}.part").symlink_to("/dev/full")
    with monkeypatch.context() as patched:
        patched.setattr("cast_ray.data.storage.uuid.uuid4", lambda: name)
        with pytest.raises(UserError, match=rf"no space left to write '.*{plans[1].path}'; free some and start again"):
            write_shard(root, plans[1].path, stored(plans[1].clips))
    assert files(tmp_path / "data") == [plans[0].path]
    assert (tmp_path / "data" / plans[0].path).read_bytes() == before
    check_content(write(root, manifest), manifest)


def test_of_two_jobs_that_write_one_shard_at_once_the_first_ones_stays(tmp_path, manifest):
    root, plan = str(tmp_path / "data"), shard_plan(manifest, PER_SHARD)[0]
    others = []

    def overtaken(clips: Sequence[Clip]) -> Iterator[StoredClip]:
        yield from stored(clips)
        others.append(write_shard(root, plan.path, (dataclasses.replace(c, reason="slow") for c in stored(clips))))

    rows = write_shard(root, plan.path, overtaken(plan.clips))
    assert rows.equals(others[0])
    assert "slow" in rows["reason"].to_pylist()
    assert files(tmp_path / "data") == [plan.path]


# What is not as it was written


def test_a_missing_or_cut_shard_is_found_when_the_dataset_is_opened(tmp_path, manifest):
    dataset = write(str(tmp_path / "data"), manifest)
    path = tmp_path / "data" / TRAIN / "shard-00001.parquet"
    content = path.read_bytes()
    path.write_bytes(content[:-9])
    with pytest.raises(
        UserError, match=rf"1 of 4 shards .* train/shard-00001.parquet is {len(content) - 9} bytes long"
    ):
        open_dataset(dataset.uri)
    path.unlink()
    with pytest.raises(UserError, match=r"1 of 4 shards .* train/shard-00001.parquet is missing; remove these shards"):
        open_dataset(dataset.uri)


@pytest.mark.parametrize("damage", ["cut", "other"])
def test_a_shard_that_changes_later_is_found_when_a_clip_is_read(tmp_path, manifest, damage):
    dataset = write(str(tmp_path / "data"), manifest)
    row = next(row for row in dataset.index.to_pylist() if row["row"] == PER_SHARD - 1)
    path = tmp_path / "data" / row["shard"]
    content = path.read_bytes()
    path.write_bytes(content[: row["place"][0] + 1] if damage == "cut" else content[::-1])
    with pytest.raises(
        UserError, match=rf"shard {row['shard']} of {dataset.uri} is damaged: .*; remove it and dataset"
    ):
        read_media(dataset.uri, row["shard"], row["place"])
    with pytest.raises(
        UserError, match=rf"shard {row['shard']} of {dataset.uri} is damaged: .*; remove it and dataset"
    ):
        finished_shard(dataset.uri, row["shard"])


def test_a_shard_that_vanishes_is_named(tmp_path, manifest):
    dataset = write(str(tmp_path / "data"), manifest)
    row = dataset.index.to_pylist()[0]
    (tmp_path / "data" / row["shard"]).unlink()
    with pytest.raises(UserError, match=rf"no access to shard {row['shard']} of {dataset.uri}: .*No such file"):
        read_media(dataset.uri, row["shard"], row["place"])


def test_shards_that_this_node_does_not_see_are_refused(tmp_path, manifest):
    root = str(tmp_path / "data")
    rows = [write_shard(root, plan.path, stored(plan.clips)) for plan in shard_plan(manifest, PER_SHARD)]
    (tmp_path / "data" / TRAIN / "shard-00001.parquet").unlink()
    with pytest.raises(UserError, match=r"1 of 4 shards, for example train/shard-00001.parquet, .* all nodes share"):
        write_index(root, manifest, FORMAT, rows)


def test_a_dataset_or_shard_of_another_format_version_is_refused(tmp_path, manifest, monkeypatch):
    root = tmp_path / "data"
    dataset = write(str(root), manifest)
    monkeypatch.setattr(shards, "FORMAT_VERSION", 99)
    with pytest.raises(UserError, match=rf"the dataset at {root} has format version 2, this program reads 99; prepare"):
        open_dataset(dataset.uri)
    with pytest.raises(UserError, match=r"shard train/shard-00000.parquet of .* has format version 2, .* reads 99"):
        finished_shard(dataset.uri, "train/shard-00000.parquet")


def test_a_parquet_file_that_is_no_shard_is_refused(tmp_path, manifest):
    dataset = write(str(tmp_path / "data"), manifest)
    pq.write_table(dataset.index, tmp_path / "data" / TRAIN / "shard-00000.parquet")
    with pytest.raises(UserError, match="has format version none, this program reads 2"):
        finished_shard(dataset.uri, "train/shard-00000.parquet")


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("dataset.json", b"{"),
        ("dataset.json", b"[]"),
        ("dataset.json", b'{"format_version": 2}'),
        ("index.parquet", b"PAR1"),
    ],
)
def test_damaged_files_beside_the_shards_are_named_with_the_way_out(tmp_path, manifest, file, content):
    dataset = write(str(tmp_path / "data"), manifest)
    (tmp_path / "data" / file).write_bytes(content)
    with pytest.raises(UserError, match=rf"dataset.json or index.parquet of the dataset at {dataset.uri} is damaged"):
        open_dataset(dataset.uri)


def test_an_index_of_other_clips_is_refused(tmp_path, manifest):
    dataset = write(str(tmp_path / "data"), manifest)
    head = json.loads((tmp_path / "data" / "dataset.json").read_text())
    (tmp_path / "data" / "dataset.json").write_text(json.dumps(head | {"clips": 44}))
    with pytest.raises(UserError, match="43 clips in the index instead of 44"):
        open_dataset(dataset.uri)


def test_an_empty_split_of_a_prepared_dataset_is_refused(tmp_path, manifest):
    dataset = write(str(tmp_path / "data"), dataclasses.replace(manifest, clips=manifest.split(TRAIN)))
    with pytest.raises(UserError, match="has no clips in split 'validation'"):
        dataset.split(VALIDATION)


# The fingerprint


@pytest.mark.parametrize(
    "change",
    [{"clip_id": "other"}, {"labels": (1, 0)}, {"split": VALIDATION}, {"start_s": 0.0}, {"stop_s": 2.0}],
    ids=lambda change: next(iter(change)),
)
def test_the_fingerprint_knows_everything_about_a_clip(manifest, change):
    changed = (dataclasses.replace(manifest.clips[0], **change), *manifest.clips[1:])
    assert fingerprint(dataclasses.replace(manifest, clips=changed), FORMAT) != fingerprint(manifest, FORMAT)


def test_the_fingerprint_knows_order_label_map_format_and_the_files_sizes(manifest):
    renamed = LabelMap({VERB: ("take", "put", "open"), NOUN: ("cup", "pan")})
    others = [
        dataclasses.replace(manifest, clips=manifest.clips[::-1]),
        dataclasses.replace(manifest, clips=manifest.clips[:-1]),
        dataclasses.replace(manifest, label_map=renamed),
    ]
    found = {fingerprint(other, FORMAT) for other in [manifest, *others]}
    found.add(fingerprint(manifest, MediaFormat(video="jpeg", sound="none")))
    assert fingerprint(Manifest(clips=tuple(manifest.clips), label_map=LABELS), FORMAT) in found
    Path(manifest.clips[0].uri).write_bytes(b"another video")
    found.add(fingerprint(manifest, FORMAT))
    assert len(found) == 6


def test_missing_videos_are_counted_and_named_before_any_work(manifest):
    for clip in manifest.clips[4:9]:
        Path(clip.uri).unlink()
    with pytest.raises(UserError, match=rf"5 of 43 video files are not there, for example {manifest.clips[4].uri}, "):
        fingerprint(manifest, FORMAT)
