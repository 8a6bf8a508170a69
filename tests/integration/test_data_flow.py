"""What Ray Data delivers to the ranks of a split dataset, against the plan."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import ray
from ray.data import ExecutionOptions
from rich.console import Console

from cast_ray.data.catalog.ssv2 import read_ssv2
from cast_ray.data.loader import ClipLoader
from cast_ray.data.manifest import TRAIN
from cast_ray.data.order import PADDING, EpochPlan, Position
from cast_ray.data.pipeline import ORDER_COLUMNS, PassPlan, iterate_run, pass_dataset, unreadable_clips
from cast_ray.data.prepare import prepare_run
from cast_ray.data.shards import ShardedDataset
from cast_ray.data.synthetic import write_dataset
from cast_ray.data.views import Sampling, TrainView

TRAIN_CLIPS, EPOCHS, WORLD_SIZE = 45, 3, 2


@pytest.fixture(scope="module")
def dataset(head, tmp_path_factory: pytest.TempPathFactory) -> ShardedDataset:
    """45 training clips, one of them corrupted."""
    folder = tmp_path_factory.mktemp("flow")
    clips = write_dataset(folder / "clips", layout="ssv2", train_clips=TRAIN_CLIPS, validation_clips=8)
    shutil.copy(Path(__file__).parents[1] / "clips" / "corrupted.mp4", clips.videos / "7.mp4")
    ray.init(address=head.gcs, log_to_driver=False, configure_logging=False)
    yield prepare_run(read_ssv2(clips.videos, clips.annotations), str(folder / "runs"), Console(quiet=True))
    ray.shutdown()


@ray.remote(num_cpus=0)
def consume(shard: ray.data.DataIterator, plan: PassPlan, rank: int, start: Position) -> list[dict]:
    """What one rank receives: `iterate_run` itself raises unless it is the plan."""
    return [
        {key: value for key, value in batch.items() if key != "frames"} | {"mean": batch["frames"].mean((1, 2, 3, 4))}
        for batch in iterate_run(shard, plan=plan, rank=rank, start=start)
    ]


def received(dataset: ShardedDataset, start: Position) -> list[list[dict]]:
    order = EpochPlan(
        num_clips=TRAIN_CLIPS, seed=3, micro_batch=4, micro_batches_per_step=2 * WORLD_SIZE, world_size=WORLD_SIZE
    )
    plan = PassPlan(order=order, epochs=EPOCHS, clips_per_task=8)
    sampling = Sampling(kind="uniform", num_frames=4, stride=4, size=32)
    view = TrainView(sampling=sampling, seed=3, crop_area=(0.5, 1.0), crop_ratio=(0.8, 1.25))
    loader = ClipLoader(root=dataset.uri, view=view, columns=ORDER_COLUMNS)
    clips = pass_dataset(dataset, TRAIN, plan=plan, loader=loader, cpus_per_decode=1.0, start=lambda: start)
    clips.context.execution_options = ExecutionOptions(preserve_order=True)
    shards = clips.streaming_split(WORLD_SIZE, equal=True)
    return ray.get([consume.remote(shard, plan, rank, start) for rank, shard in enumerate(shards)], timeout=300)


def test_every_rank_gets_its_planned_batches_and_every_clip_comes_once_per_epoch(dataset: ShardedDataset) -> None:
    ranks = received(dataset, Position())
    assert len({len(batches) for batches in ranks}) == 1
    for epoch in range(EPOCHS):
        rows = [batch["clip"][batch["epoch"] == epoch] for batches in ranks for batch in batches]
        clips = np.concatenate(rows)
        assert sorted(clips[clips != PADDING].tolist()) == list(range(TRAIN_CLIPS))


def test_a_run_resumed_in_the_middle_of_an_epoch_gets_exactly_the_rest(dataset: ShardedDataset) -> None:
    through, resumed = received(dataset, Position()), received(dataset, Position(epoch=1, step=1))
    for whole, rest in zip(through, resumed, strict=True):
        skipped = len(whole) - len(rest)
        assert skipped > 0
        for expected, batch in zip(whole[skipped:], rest, strict=True):
            for key in ("epoch", "step", "accumulation", "clip", "labels", "valid", "mean"):
                np.testing.assert_array_equal(batch[key], expected[key])


def test_an_unreadable_clip_keeps_its_place_and_is_reported_in_every_epoch(dataset: ShardedDataset) -> None:
    found = [unreadable_clips(batch) for batches in received(dataset, Position()) for batch in batches]
    reports = [report for report in found if report]
    assert len(reports) == EPOCHS
    assert all(list(report) == ["7"] and report["7"] for report in reports)
