"""Preparation as a user runs it: a submitted job, S3, a killed driver, a dying worker, a clip that kills workers."""

from __future__ import annotations

import io
import itertools
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from threading import Thread, Timer

import av
import psutil
import pyarrow.fs as pafs
import pytest
import ray
from ray.data import ExecutionOptions
from rich.console import Console

from cast_ray.data.catalog import read_ssv2
from cast_ray.data.ingest import stored_clips
from cast_ray.data.loader import ClipLoader
from cast_ray.data.manifest import TRAIN, VALIDATION, Manifest
from cast_ray.data.media import MediaFormat
from cast_ray.data.order import EpochPlan, Position
from cast_ray.data.pipeline import ORDER_COLUMNS, PassPlan, iterate_run, pass_dataset
from cast_ray.data.prepare import prepare
from cast_ray.data.shards import ShardedDataset, open_complete, read_media, shard_plan, write_index, write_shard
from cast_ray.data.storage import filesystem
from cast_ray.data.synthetic import SyntheticDataset, write_dataset
from cast_ray.data.views import Sampling, TrainView
from cast_ray.evaluation.predictions import read_predictions

REPOSITORY = Path(__file__).parents[2]
TRAIN_CLIPS, VALIDATION_CLIPS, PER_SHARD = 56, 8, 4
NUM_SHARDS = (TRAIN_CLIPS + VALIDATION_CLIPS) // PER_SHARD
CORRUPTED = "5"
JPEG = MediaFormat(video="jpeg", sound="16khz")
WAIT_S = 240
AWAY_S, EPOCHS = 3.0, 12


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> SyntheticDataset:
    """The embedded dataset; one clip cannot be read."""
    folder = tmp_path_factory.mktemp("ssv2") / "clips"
    clips = write_dataset(folder, layout="ssv2", train_clips=TRAIN_CLIPS, validation_clips=VALIDATION_CLIPS)
    shutil.copy(Path(__file__).parents[1] / "clips" / "corrupted.mp4", clips.videos / f"{CORRUPTED}.mp4")
    return clips


@pytest.fixture(scope="module")
def manifest(clips: SyntheticDataset) -> Manifest:
    return read_ssv2(clips.videos, clips.annotations)


@pytest.fixture(scope="module")
def undisturbed(manifest: Manifest, tmp_path_factory: pytest.TempPathFactory) -> ShardedDataset:
    """A preparation as JPEG in one process, without Ray."""
    root = str(tmp_path_factory.mktemp("undisturbed"))
    plans = shard_plan(manifest, PER_SHARD)
    rows = [write_shard(root, plan.path, stored_clips(plan.clips, JPEG)) for plan in plans]
    return write_index(root, manifest, JPEG, rows)


def job_flags(clips: SyntheticDataset, output: str, video: str) -> list[str]:
    read = ["--layout", "ssv2", "--data", str(clips.videos), "--annotations", str(clips.annotations)]
    stored = ["--media.video", video, "--media.sound", "16khz", "--clips-per-shard", str(PER_SHARD)]
    return [*read, "--output", output, *stored]


def shards(root: Path) -> dict[Path, tuple[int, bytes]]:
    """Time of writing and content of every shard."""
    return {
        path.relative_to(root): (path.stat().st_mtime_ns, path.read_bytes()) for path in root.rglob("shard-*.parquet")
    }


def wait_for(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {WAIT_S} s: {what}"
        time.sleep(0.02)


def check_same(found: ShardedDataset, expected: ShardedDataset) -> None:
    """Index and files are equal, byte by byte, and nothing else is there."""
    assert found.index.equals(expected.index)
    contents = [
        {path: content for path, (_, content) in shards(Path(dataset.uri)).items()} for dataset in (found, expected)
    ]
    assert contents[0] == contents[1]
    assert len(contents[0]) == NUM_SHARDS
    assert not list(Path(found.uri).rglob("*.part"))


def test_a_dataset_is_prepared_on_s3_and_trained_from_there(
    submit, clips, manifest, s3_server, s3_bucket, tmp_path
) -> None:
    root = f"{s3_bucket}/some/where"
    flags = job_flags(clips, root, "short-gop")
    status, text = submit(*flags, job="prepare_data", variables=s3_server.environment)
    assert status == 0, text
    assert f"1 of {len(manifest.clips)} clips (1.6%) cannot be used" in text
    assert f"clip {CORRUPTED} (" in text
    assert f"python jobs/train_ssv2.py --shards {root}" in text

    dataset = open_complete(root)
    expected = [clip.clip_id for plan in shard_plan(manifest, PER_SHARD) for clip in plan.clips]
    assert dataset.index["clip_id"].to_pylist() == expected
    assert dataset.quarantined["clip_id"].to_pylist() == [CORRUPTED]
    assert (dataset.split(TRAIN).num_rows, dataset.split(VALIDATION).num_rows) == (TRAIN_CLIPS, VALIDATION_CLIPS)
    row = dataset.split(VALIDATION).to_pylist()[0]
    media = read_media(root, row["shard"], row["place"])
    with av.open(io.BytesIO(media.video)) as video, av.open(io.BytesIO(media.sound)) as sound:
        assert sum(1 for _ in video.decode(video=0)) == row["num_frames"]
        assert sound.streams.audio[0].rate == 16_000

    def objects() -> list[tuple]:
        storage, base = filesystem(root)
        infos = storage.get_file_info(pafs.FileSelector(base, recursive=True))
        return sorted((info.path, info.size, info.mtime_ns) for info in infos if info.is_file)

    before = objects()
    assert not any(path.endswith(".part") for path, *_ in before)
    status, text = submit(*flags, job="prepare_data", variables=s3_server.environment)
    assert status == 0, text
    assert "nothing was left to do" in text
    assert objects() == before

    flags = ["--small", "--shards", root, "--storage", str(tmp_path), "--name", "s3", "--optim.epochs", "1"]
    status, text = submit(*flags, "--data.max-unreadable", "0.05", variables=s3_server.environment)
    assert status == 0, text
    assert f"unreadable  clip {CORRUPTED}: " in text
    assert len(read_predictions(tmp_path / "s3" / "predictions.parquet").clip_ids) == VALIDATION_CLIPS


def test_an_epoch_goes_on_when_the_storage_was_away_for_a_while(head, sharded, manifest, s3_server, s3_bucket) -> None:
    dataset = sharded(manifest, f"{s3_bucket}/epoch")
    order = EpochPlan(num_clips=TRAIN_CLIPS, seed=3, micro_batch=4, micro_batches_per_step=1, world_size=1)
    plan = PassPlan(order=order, epochs=EPOCHS, clips_per_task=4)
    sampling = Sampling(kind="uniform", num_frames=4, stride=4, size=32)
    view = TrainView(sampling=sampling, seed=3, crop_area=(0.5, 1.0), crop_ratio=(0.8, 1.25))
    loader = ClipLoader(root=dataset.uri, stored=dataset.format, view=view, columns=ORDER_COLUMNS)
    ray.init(
        address=head.gcs,
        log_to_driver=False,
        configure_logging=False,
        runtime_env={"env_vars": s3_server.environment},
    )
    try:
        clips = pass_dataset(dataset, TRAIN, plan=plan, loader=loader)
        clips.context.execution_options = ExecutionOptions(preserve_order=True)
        (shard,) = clips.streaming_split(1, equal=True)
        seen: Counter[tuple[int, str]] = Counter()
        back, came = Timer(AWAY_S, s3_server.start), [time.monotonic()]
        for number, batch in enumerate(iterate_run(shard, plan=plan, rank=0, start=Position())):
            if number == 1:
                s3_server.stop()
                back.start()
            came.append(time.monotonic())
            assert (batch["valid"] | (batch["clip_id"] == CORRUPTED)).all(), batch["reason"]
            seen.update(zip(batch["epoch"].tolist(), batch["clip_id"].tolist(), strict=True))
        back.join()
    finally:
        ray.shutdown()
    assert seen == {(epoch, clip.clip_id): 1 for epoch in range(EPOCHS) for clip in manifest.split(TRAIN)}
    assert max(after - before for before, after in itertools.pairwise(came[2:])) > AWAY_S / 3  # it was missed


def test_a_killed_preparation_continues_and_gives_the_same_dataset(
    head, cluster_environment, clips, undisturbed, tmp_path
) -> None:
    root = tmp_path / "data"
    command = [sys.executable, "jobs/prepare_data.py", *job_flags(clips, str(root), "jpeg")]
    environment = cluster_environment | {"RAY_ADDRESS": head.gcs}
    driver = subprocess.Popen(
        command, env=environment, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_for(lambda: len(shards(root)) >= 3 or driver.poll() is not None, "three shards")
    finally:
        driver.send_signal(signal.SIGKILL)
        driver.wait(timeout=30)
    wait_for(lambda: not preparing_processes(head.gcs), "the tasks of the killed driver end")
    before = shards(root)
    assert 3 <= len(before) < NUM_SHARDS
    assert not (root / "dataset.json").exists()

    finished = subprocess.run(
        command, env=environment, cwd=REPOSITORY, capture_output=True, text=True, timeout=WAIT_S, check=False
    )
    assert finished.returncode == 0, finished.stderr
    assert f"continuing: {len(before)} of {NUM_SHARDS} shards are there" in finished.stdout
    after = shards(root)
    assert {path: after[path] for path in before} == before
    check_same(open_complete(str(root)), undisturbed)


def preparing_processes(gcs: str) -> list[psutil.Process]:
    """Worker processes of this test's own head that write a shard."""
    port, found = gcs.rsplit(":", 1)[1], []
    for process in psutil.process_iter(["cmdline"]):
        try:
            if "ray::_make_shard" in " ".join(process.info["cmdline"] or ()) and any(
                f"--port={port}" in parent.cmdline() for parent in process.parents()
            ):
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_a_worker_that_dies_is_replaced_and_loses_nothing(head, manifest, undisturbed, tmp_path) -> None:
    root = str(tmp_path / "data")
    ray.init(address=head.gcs, log_to_driver=False, configure_logging=False)
    try:
        killed = []

        def kill_one() -> None:
            wait_for(lambda: len(shards(Path(root))) >= 2, "two shards")
            wait_for(lambda: preparing_processes(head.gcs), "a worker at work")
            process = preparing_processes(head.gcs)[0]
            process.kill()
            killed.append(process.pid)

        killer = Thread(target=kill_one)
        killer.start()
        done = prepare(manifest, root, JPEG, Console(quiet=True), clips_per_shard=PER_SHARD)
        killer.join(timeout=WAIT_S)
        assert killed
    finally:
        ray.shutdown()
    assert done.clips_made == len(manifest.clips)
    check_same(done.dataset, undisturbed)


CRASHING = """
import os, signal
from cast_ray.data import prepare

whole = prepare.stored_clips

def crashing(clips, media_format):
    for clip in clips:
        if clip.clip_id in ("7", "11"):
            os.kill(os.getpid(), signal.SIGSEGV)
        yield from whole([clip], media_format)

def install():
    prepare.stored_clips = crashing
"""


def test_clips_that_crash_their_process_are_quarantined_and_the_others_are_not(
    head, manifest, undisturbed, tmp_path
) -> None:
    (tmp_path / "crashing.py").write_text(CRASHING)
    environment = {
        "env_vars": {"PYTHONPATH": f"{tmp_path}:{REPOSITORY}"},
        "worker_process_setup_hook": "crashing.install",
    }
    ray.init(address=head.gcs, log_to_driver=False, configure_logging=False, runtime_env=environment)
    try:
        done = prepare(manifest, str(tmp_path / "data"), JPEG, Console(quiet=True), clips_per_shard=PER_SHARD)
    finally:
        ray.shutdown()
    reasons = dict(zip(*(done.dataset.quarantined[name].to_pylist() for name in ("clip_id", "reason")), strict=True))
    assert set(reasons) == {CORRUPTED, "7", "11"}
    assert {reasons["7"], reasons["11"]} == {"decoding crashes the process"}
    kept, expected = (
        {row["clip_id"]: row["bytes"] for row in dataset.index.to_pylist() if row["clip_id"] not in ("7", "11")}
        for dataset in (done.dataset, undisturbed)
    )
    assert kept == expected
    assert len(kept) == len(manifest.clips) - 2
