"""Evaluations on a real cluster: killed and gone on with, and a batch of files of which some are broken."""

from __future__ import annotations

import dataclasses
import io
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
from rich.console import Console

from cast_ray.data.loader import ROW_COLUMNS, clip_loader
from cast_ray.data.manifest import VALIDATION, Clip, Manifest
from cast_ray.data.order import Position
from cast_ray.data.shards import ShardedDataset
from cast_ray.evaluation.batch import batch_of_files, predict_batch
from cast_ray.evaluation.distributed import Work, predict_parts
from cast_ray.evaluation.kept_listing import kept_listing
from cast_ray.evaluation.part_files import read_unreadable
from cast_ray.evaluation.part_tables import AllProbabilities
from cast_ray.evaluation.parts import ROW
from cast_ray.evaluation.predict import predict
from cast_ray.evaluation.predictions import UNKNOWN, read_predictions
from cast_ray.evaluation.trained import model_at
from cast_ray.labels import LabelMap
from cast_ray.recipes.toy import toy
from cast_ray.training.build import build_network
from cast_ray.training.checkpoint import CheckpointState, write_checkpoint

REPOSITORY = Path(__file__).parents[2]
CLIPS = Path(__file__).parents[1] / "clips"
LABELS = LabelMap({"verb": ("take", "put", "open"), "noun": ("cup", "door")})
READABLE = ("arm_wrestling_k400.mp4", "flipping_pancake_k400.mkv", "nasa_with_audio.mp4", "rotated_90.mov")
COPIES, PARTS = 60, 6
TIMEOUT_S = 600


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    recipe = toy()
    scale = dataclasses.replace(recipe.scale, use_gpu=False, cpus_per_worker=0.5)
    test = dataclasses.replace(recipe.test, num_workers=2, clips_per_batch=2)
    data = dataclasses.replace(recipe.data, cpus_per_decode=0.5, clips_per_task=2, max_unreadable=0.5)
    config = dataclasses.replace(recipe, scale=scale, test=test, data=data, storage=str(folder / "storage"))
    network, frozen = build_network(config.model, config.weights, LABELS, seed=config.seed)
    state = CheckpointState(
        position=Position(), config=config.to_dict(), label_map=LABELS, dataset="", frozen=frozen, validation={}
    )
    weights = {name: p.detach().clone() for name, p in network.named_parameters() if p.requires_grad}
    write_checkpoint(folder, state, {"weights": weights}, [])
    return folder


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory, sharded) -> ShardedDataset:
    """Short clips, one in ten of which cannot be read."""
    files = ["corrupted.mp4" if number % 10 == 7 else "rotated_90.mov" for number in range(COPIES)]
    clips = tuple(
        Clip(clip_id=f"clip {number:02}", uri=str(CLIPS / name), labels=(number % 3, number % 2), split=VALIDATION)
        for number, name in enumerate(files)
    )
    return sharded(Manifest(clips=clips, label_map=LABELS), tmp_path_factory.mktemp("shards"))


@pytest.fixture(scope="module")
def connected(head) -> Iterator[None]:
    ray.init(address=head.gcs, log_to_driver=False, configure_logging=False)
    yield
    ray.shutdown()


@pytest.fixture
def job(head, cluster_environment, tmp_path) -> Iterator[Callable[..., subprocess.Popen]]:
    """Starts a job in a process of its own; what it prints goes to the file `log`."""
    environment = cluster_environment | {"RAY_ADDRESS": head.gcs, "OMP_NUM_THREADS": "1"}
    started: list[subprocess.Popen] = []

    def start(name: str, *flags: str) -> subprocess.Popen:
        command = [sys.executable, f"jobs/{name}.py", *flags]
        with (tmp_path / "log").open("w") as log:
            started.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=REPOSITORY))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait(timeout=30)


def test_a_killed_evaluation_goes_on_and_gives_what_an_undisturbed_one_gives(
    connected, job, checkpoint, dataset, tmp_path
):
    once, killed, log = tmp_path / "once", tmp_path / "killed", tmp_path / "log"
    size = COPIES // PARTS
    flags = ("--per-view", "--clips-per-part", str(size), "--output", str(killed))
    process = job("evaluate", str(checkpoint), "--shards", dataset.uri, *flags)
    deadline = time.monotonic() + TIMEOUT_S
    while not list(killed.glob("part-*.parquet")):
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.005)
    process.kill()
    process.wait(timeout=30)
    time.sleep(1)  # Ray ends the killed driver's actors
    finished = {path: path.stat().st_mtime_ns for path in killed.glob("part-*.parquet")}
    assert 0 < len(finished) < PARTS

    model, console = model_at(str(checkpoint)), Console(record=True, file=io.StringIO())
    asked = {"console": console, "per_view": True, "clips_per_part": size}
    resumed = predict(model, dataset, VALIDATION, output=str(killed), **asked)
    assert f"continuing: {len(finished)} of {PARTS} parts are there" in console.export_text()
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    assert (resumed.clips, resumed.made) == (COPIES, COPIES - size * len(finished))
    alone = model.used(dataclasses.replace(model.config, test=dataclasses.replace(model.config.test, num_workers=1)))
    undisturbed = predict(alone, dataset, VALIDATION, output=str(once), **asked)

    found, expected = read_predictions(killed, views=True), read_predictions(once, views=True)
    assert found.clip_ids == expected.clip_ids
    assert found.clip_ids == tuple(f"clip {number:02}" for number in range(COPIES) if number % 10 != 7)
    np.testing.assert_array_equal(found.labels, expected.labels)
    for field in LABELS.fields:
        np.testing.assert_array_equal(found.probabilities[field], expected.probabilities[field])
        assert expected.view_probabilities is not None
        np.testing.assert_array_equal(found.view_probabilities[field], expected.view_probabilities[field])
    assert resumed.unreadable == undisturbed.unreadable
    assert [clip for clip, _ in resumed.unreadable] == [f"clip {ten}7" for ten in range(6)]
    assert not list(killed.rglob("*.part"))


def test_a_folder_of_files_is_predicted_and_what_is_broken_is_listed(connected, job, checkpoint, tmp_path):
    videos, out = tmp_path / "videos" / "deep", tmp_path / "out"
    videos.mkdir(parents=True)
    for name in (*READABLE, "corrupted.mp4"):
        shutil.copy(CLIPS / name, videos)
    (videos / "empty.mp4").touch()
    (videos / "text.mp4").write_text("this is no video")
    flags = ("--clips-per-part", "3", "--top", "2", "--num-workers", "1")
    process = job("predict", str(checkpoint), "--input", str(videos.parent), "--output", str(out), *flags)
    assert process.wait(timeout=TIMEOUT_S) == 0, (tmp_path / "log").read_text()
    assert "unreadable: 3 clips, all of them in" in (tmp_path / "log").read_text()
    reasons = dict(read_unreadable(str(out)))
    assert sorted(reasons) == ["deep/corrupted.mp4", "deep/empty.mp4", "deep/text.mp4"]
    assert reasons["deep/empty.mp4"] == "file is empty"
    table = pq.read_table(sorted(out.glob("part-*.parquet")))
    assert sorted(table["clip_id"].to_pylist()) == sorted(f"deep/{name}" for name in READABLE)

    model, quiet = model_at(str(checkpoint)), Console(quiet=True)
    batch = batch_of_files(kept_listing(str(videos.parent), str(out)), model)
    again = predict_batch(model, batch, output=str(out), console=quiet, top=2, clips_per_part=3)
    assert (again.clips, again.made) == (7, 0)
    everything = str(tmp_path / "everything")
    predict_batch(model, batch, output=everything, console=quiet, probabilities=True)
    predictions = read_predictions(everything)
    assert (predictions.labels == UNKNOWN).all()
    best = {row["clip_id"]: [each["class"] for each in row["top_verb"]] for row in table.to_pylist()}
    order = np.argsort(-predictions.probabilities["verb"], axis=1, kind="stable")[:, :2].tolist()
    assert best == dict(zip(predictions.clip_ids, order, strict=True))


def test_a_clip_that_kills_its_process_is_unreadable_and_its_neighbours_are_not(
    connected, checkpoint, dataset, tmp_path
):
    """Ray alone would begin its task again for ever."""
    model = model_at(str(checkpoint))
    loader = clip_loader(dataset, model.config, model.views, (ROW,))

    def kills(rows: pa.Table) -> dict:
        usable = zip(rows["clip_id"].to_pylist(), rows["num_frames"].to_pylist(), strict=True)
        if any(clip_id == "clip 02" and frames is not None for clip_id, frames in usable):
            os._exit(1)
        return loader(rows)

    work = Work(
        clips=dataset.split(VALIDATION).select(ROW_COLUMNS).slice(0, 6),
        loader=kills,
        model=model,
        table=AllProbabilities(label_map=LABELS, checkpoint=model.fingerprint),
        output=str(tmp_path / "out"),
        settings={},
        clips_per_part=4,
    )
    outcome = predict_parts(work, Console(quiet=True))
    assert outcome.unreadable == (("clip 02", "decoding kills the process"),)
    expected = tuple(f"clip {number:02}" for number in (0, 1, 3, 4, 5))
    assert read_predictions(tmp_path / "out").clip_ids == expected
