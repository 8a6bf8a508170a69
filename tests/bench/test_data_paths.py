"""The bare work of our paths is the loader on the blocks that Ray Data gets; all views at once are those one by one."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from cast_ray.bench import data_paths, data_views
from cast_ray.bench.data_clips import Kind, make_inputs
from cast_ray.bench.data_loaders import PilClips, TensorClips
from cast_ray.bench.data_paths import DataJob

CLIPS = Path(__file__).parents[1] / "clips"


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> DataJob:
    folder = tmp_path_factory.mktemp("paths") / "made"
    inputs = make_inputs([CLIPS / "arm_wrestling_k400.mp4"], folder, Kind(seconds=1.5, fps=12), clips=4)
    return DataJob(
        path="jpeg",
        files=inputs.files,
        datasets=inputs.datasets,
        decoder="pyav",
        workers=2,
        batch=2,
        clips_per_task=4,
        seconds=0.1,
    )


@pytest.mark.parametrize(
    ("path", "stages"),
    [
        ("same-cpu", {"read", "decode", "crop", "augment"}),
        ("short-gop", {"read", "decode", "crop"}),
        ("jpeg", {"read", "decode", "crop"}),
    ],
)
def test_a_block_of_ours_has_the_clips_of_a_task_and_its_stages_are_found(job, path, stages):
    work = data_paths._work(dataclasses.replace(job, path=path))
    assert work(3) == 4
    profiled = data_paths.bare_loop(work, workers=1, seconds=0.1)["seconds_per_clip"]
    assert set(profiled) == stages | {"other"}
    assert all(profiled[stage] > 0 for stage in stages)


@pytest.mark.parametrize(("path", "kind"), [("dataloader-pil", PilClips), ("dataloader-tensor", TensorClips)])
def test_the_work_of_a_dataloader_is_its_dataset(job, path, kind):
    assert data_paths._work(dataclasses.replace(job, path=path)) == kind(job.files)


def test_unreadable_clips_stop_a_measurement(job):
    block = {"valid": data_paths.np.array([True, False]), "reason": data_paths.np.array(["", "cut short"])}
    with pytest.raises(RuntimeError, match="cut short"):
        data_paths._count(block)


def test_both_ways_to_all_views_are_measured_and_equal(job):
    """`measure_views` itself compares the frames."""
    measured = data_views.measure_views(job)["views"]
    assert set(measured) == {f"{stored} {times}x3" for stored in job.datasets for times in (2, 5)}
    for figures in measured.values():
        assert figures["ratio"] > 1
