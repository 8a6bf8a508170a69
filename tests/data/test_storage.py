"""Storage: real S3 requests, faults that pass and faults that do not, and files that are whole or not there."""

from __future__ import annotations

import errno
import os
import re
import socket
import threading
import time
from pathlib import Path

import pyarrow.fs as pafs
import pytest

from cast_ray.data import storage
from cast_ray.data.manifest import Clip, Manifest
from cast_ray.data.media import Facts, Media, MediaFormat, StoredClip
from cast_ray.data.shards import open_dataset, read_media, write_index, write_shard
from cast_ray.data.storage import (
    check_writable,
    file_sizes,
    filesystem,
    joined,
    read_bytes,
    retried,
    written_whole,
)
from cast_ray.errors import UserError
from cast_ray.labels import LabelMap

DOWN_S = 3.0
FACTS = Facts(num_frames=1, fps=1.0, width=1, height=1, video_codec="h264", sound_codec="", source="h264 1x1")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "PATIENCE_S", 2.0)
    monkeypatch.setattr(storage, "REQUEST_TIMEOUT_S", 2.0)


@pytest.fixture
def rows(s3_bucket: str, tmp_path: Path) -> list[dict]:
    """Index rows of a dataset of 20 clips in a bucket, with `root`."""
    clips = [Clip(clip_id=str(n), uri=str(tmp_path / f"{n}.mp4"), labels=(0,), split="train") for n in range(20)]
    for clip in clips:
        Path(clip.uri).write_bytes(b"source")
    stored = [StoredClip(clip=clip, media=Media(video=clip.clip_id.encode() * 999), facts=FACTS) for clip in clips]
    root = f"{s3_bucket}/data"
    manifest = Manifest(clips=tuple(clips), label_map=LabelMap({"label": ("a",)}))
    shard = write_shard(root, "train/shard-00000.parquet", stored)
    return [row | {"root": root} for row in write_index(root, manifest, MediaFormat(), [shard]).index.to_pylist()]


def read(row: dict) -> bytes | None:
    return read_media(row["root"], row["shard"], row["place"]).video


def expected(row: dict) -> bytes:
    return row["clip_id"].encode() * 999


# Faults


def test_a_read_waits_for_a_server_that_comes_back_and_loses_nothing(rows, s3_server):
    """Half of the clips are read, the server goes for three seconds, the others are read: none is missing or wrong."""
    half = len(rows) // 2
    assert [read(row) for row in rows[:half]] == [expected(row) for row in rows[:half]]
    s3_server.stop()
    timer = threading.Timer(DOWN_S, s3_server.start)
    timer.start()
    started = time.monotonic()
    try:
        assert [read(row) for row in rows[half:]] == [expected(row) for row in rows[half:]]
    finally:
        timer.join()
    assert DOWN_S <= time.monotonic() - started < DOWN_S + 20


def test_a_server_that_stays_away_is_reported_in_time(rows, s3_server, impatient):
    assert read(rows[0]) == expected(rows[0])
    s3_server.stop()
    try:
        for attempt in (lambda: read(rows[1]), lambda: open_dataset(rows[0]["root"])):
            started = time.monotonic()
            with pytest.raises(UserError, match=r"no access to .* after \d+ attempts: .*start the same command again"):
                attempt()
            assert time.monotonic() - started < 15
    finally:
        s3_server.start()


def test_a_server_that_never_answers_is_given_up_in_time(s3_bucket, impatient, monkeypatch):
    """Without time limits of our own, one request was still waiting after three minutes."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(50)
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        started = time.monotonic()
        with pytest.raises(UserError, match=r"no access to s3://bucket/clip.mp4 after 1 attempts"):
            read_bytes("s3://bucket/clip.mp4")
        assert time.monotonic() - started < 20


def test_a_gcs_server_that_stays_away_is_reported_in_time(monkeypatch):
    monkeypatch.setattr(storage, "PATIENCE_S", 0.0)
    monkeypatch.setattr(storage, "REQUEST_TIMEOUT_S", 1.0)
    uri = "gs://anonymous@bucket/clip.mp4?scheme=http&endpoint_override=127.0.0.1:9"
    started = time.monotonic()
    with pytest.raises(UserError, match=r"no access to gs://anonymous@bucket/clip.mp4"):
        read_bytes(uri)
    assert time.monotonic() - started < 20


def test_what_waiting_cannot_mend_is_reported_at_once(s3_bucket, gcs_bucket, tmp_path):
    calls = []

    def work() -> None:
        calls.append(time.monotonic())
        raise OSError("AWS Error ACCESS_DENIED during GetObject operation")

    with pytest.raises(UserError, match="no access to the clip: AWS Error ACCESS_DENIED"):
        retried(work, what="the clip")
    assert len(calls) == 1
    server = gcs_bucket.partition("?")[2]
    none = [joined(root, "none.mp4") for root in (s3_bucket, gcs_bucket, "s3://no-such-bucket-here", str(tmp_path))]
    for uri in (*none, f"gs://anonymous@no-such-bucket/none.mp4?{server}"):
        with pytest.raises(UserError, match=rf"no access to {re.escape(uri)}: "):
            read_bytes(uri)


def test_a_fault_that_passes_is_logged_and_the_connection_made_anew(caplog):
    results = [OSError(errno.EIO, "a fault"), OSError(errno.EIO, "a fault"), b"content"]
    anew = []

    def work() -> bytes:
        result = results.pop(0)
        if isinstance(result, OSError):
            raise result
        return result

    assert retried(work, what="the clip", before_retry=lambda: anew.append(None)) == b"content"
    assert len(anew) == 2
    assert caplog.text.count("no access to the clip") == 2


def test_an_error_of_the_program_is_not_taken_for_a_fault_of_the_storage():
    with pytest.raises(ZeroDivisionError):
        retried(lambda: 1 / 0, what="the clip")


# Files


@pytest.mark.parametrize("remote", [None, "s3_bucket", "gcs_bucket"])
def test_a_file_is_whole_or_not_there(tmp_path, request, remote):
    root = request.getfixturevalue(remote) if remote else str(tmp_path)
    files, base = filesystem(root)
    path = f"{base}/file"

    def names() -> list[str]:
        return [info.base_name for info in files.get_file_info(pafs.FileSelector(base))]

    def broken_off() -> None:
        with written_whole(files, path) as sink:
            sink.write(b"half")
            raise RuntimeError("power failure")

    with pytest.raises(RuntimeError, match="power failure"):
        broken_off()
    assert names() == []
    with written_whole(files, path) as sink:
        sink.write(b"whole")
        assert "file" not in names()
    assert (names(), read_bytes(joined(root, "file"))) == (["file"], b"whole")
    with written_whole(files, path, replace=False) as sink:
        sink.write(b"late")
    assert (names(), read_bytes(joined(root, "file"))) == (["file"], b"whole")
    with written_whole(files, path) as sink:
        sink.write(b"new")
    assert (names(), read_bytes(joined(root, "file"))) == (["file"], b"new")


def test_a_file_too_large_for_s3_is_refused_in_words_and_removed(s3_bucket, monkeypatch):
    monkeypatch.setattr(storage, "LARGEST_COPY", 3)
    files, base = filesystem(s3_bucket)
    with (
        pytest.raises(UserError, match="S3 allows 5; put fewer clips into a shard"),
        written_whole(files, f"{base}/file") as sink,
    ):
        sink.write(b"whole")
    assert files.get_file_info(pafs.FileSelector(base)) == []


def test_missing_files_are_counted_and_named(tmp_path):
    uris = [str(tmp_path / str(n)) for n in range(5)]
    for uri in uris[3:]:
        Path(uri).write_bytes(b"abc")
    assert file_sizes(uris[3:]) == [3, 3]
    assert file_sizes([]) == []
    with pytest.raises(UserError, match=rf"3 of 5 video files are not there, for example {', '.join(uris[:3])}; "):
        file_sizes(uris)


def test_storage_that_can_be_written_is_made_and_left_empty(tmp_path, s3_bucket, gcs_bucket):
    check_writable(str(tmp_path / "new" / "folder"))
    assert list((tmp_path / "new" / "folder").iterdir()) == []
    for bucket in (s3_bucket, gcs_bucket):
        check_writable(joined(bucket, "new"))
        files, base = filesystem(bucket)
        infos = files.get_file_info(pafs.FileSelector(base, recursive=True))
        assert [info.path for info in infos if info.type == pafs.FileType.File] == []


def test_storage_that_cannot_be_written_is_refused_before_any_work(tmp_path, s3_bucket, gcs_bucket):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="there is no bucket 'none'; make it, or give another"):
        check_writable(f"gs://anonymous@none/runs?{gcs_bucket.partition('?')[2]}")
    for uri in (f"{tmp_path}/file/runs", "s3://no-such-bucket-here/runs"):
        with pytest.raises(UserError, match=rf"cannot write to storage '{uri}': .*; give a folder or URI"):
            check_writable(uri)


@pytest.mark.parametrize("uri", ["nowhere://bucket/clips", "://x"])
def test_storage_that_cannot_be_opened_is_refused_with_an_example(uri):
    with pytest.raises(UserError, match=rf"cannot open storage '{uri}': .*s3://bucket/path"):
        filesystem(uri)


def test_an_s3_uri_keeps_its_options_and_gets_time_limits(s3_server):
    address = os.environ["AWS_ENDPOINT_URL"].removeprefix("http://")
    uri = f"s3://key:secret@bucket/x?endpoint_override={address}&scheme=http&region=eu-west-1"
    plain, _ = pafs.FileSystem.from_uri(uri)
    ours, path = filesystem(uri)
    assert path == "bucket/x"
    (before,), (after,) = (each.__reduce__()[1] for each in (plain, ours))
    assert {name for name in before if before[name] != after[name]} == {"connect_timeout", "request_timeout"}
    assert (after["access_key"], after["region"], after["endpoint_override"]) == ("key", "eu-west-1", address)


def test_options_of_a_uri_stay_at_its_end():
    assert joined("s3://bucket/x?region=eu", "shards", "1") == "s3://bucket/x/shards/1?region=eu"
    assert joined("s3://bucket/x/", "shards") == "s3://bucket/x/shards"
    assert joined("/data/what?/x", "shards") == "/data/what?/x/shards"


@pytest.mark.parametrize("uri", ["s3://", "gs://"])
def test_a_uri_without_a_bucket_is_refused(uri):
    with pytest.raises(UserError, match="names no bucket"):
        filesystem(uri)


@pytest.mark.parametrize("uri", ["s3://bucket/a#1", "s3://bucket/a b"])
def test_what_a_uri_cannot_have_is_refused_and_not_cut_off(uri):
    with pytest.raises(UserError, match="%20 or %23"):
        filesystem(uri)
