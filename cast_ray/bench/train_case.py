"""What `cast-ray bench train` trains: a configuration, its clips, and the very micro batches of its first steps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from cast_ray.config import (
    AugmentConfig,
    BatchConfig,
    DataConfig,
    ModelConfig,
    OptimConfig,
    RunConfig,
    ScaleConfig,
)
from cast_ray.data.order import EpochPlan, Position
from cast_ray.data.shards import ShardedDataset

if TYPE_CHECKING:
    from cast_ray.data.pipeline import PassPlan

__all__ = ["Case", "first_micro_batches", "make_dataset", "plan_of"]

FRAME_SIZE = 64
"""Height and width of the rendered clips, in pixels."""
CLIP_FRAMES = 24
LEARNING_RATE = 1e-5
"""For 256 clips; so low that nothing diverges, however long the same clips are trained on."""

Batch = dict[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Case:
    """What all ways to train have in common."""

    model: str
    image_size: int | None
    frames: int | None
    batch: int
    """Clips of a worker's forward pass."""
    accumulation: int
    workers: int
    threads: int
    """Of PyTorch in one worker on a CPU."""
    cuda: bool
    precision: Literal["float32", "bf16"]
    zero_stage: Literal[0, 1, 2, 3]
    epoch_steps: int
    """Updates of an epoch; an epoch goes once through the clips."""
    epochs: int
    """Of the run through the whole stack; the first one is not counted."""
    checkpoint_every: int
    """Updates between two checkpoints of it."""

    @property
    def global_batch(self) -> int:
        return self.batch * self.accumulation * self.workers

    def config(self, storage: str, name: str) -> RunConfig:
        """Of the run through the whole stack: the paper's training without random changes of the clips."""
        return RunConfig(
            name=name,
            storage=storage,
            log_every=self.epoch_steps,
            validate_every=self.epochs,
            checkpoint_every=self.checkpoint_every,
            keep_checkpoints=1,
            model=ModelConfig(name=self.model, image_size=self.image_size, num_frames=self.frames),
            data=DataConfig(clips_per_task=2 * self.batch),
            augment=AugmentConfig(rand_augment=None, mixup_alpha=0.0, flip=0.0),
            batch=BatchConfig(global_batch=self.global_batch, micro_batch=self.batch),
            optim=OptimConfig(
                epochs=self.epochs, warmup_epochs=0.0, base_lr=LEARNING_RATE, min_lr=LEARNING_RATE, label_smoothing=0.0
            ),
            scale=ScaleConfig(
                num_workers=self.workers,
                use_gpu=self.cuda,
                cpus_per_worker=self.threads,
                precision=self.precision,
                zero_stage=self.zero_stage,
                max_failures=0,
            ),
        )


def make_dataset(case: Case, folder: Path) -> str:
    """Render clips for one epoch and store them as shards; returns where.

    Raises:
        UserError: there is no room.
    """
    from cast_ray.data.catalog import read_ssv2
    from cast_ray.data.ingest import stored_clips
    from cast_ray.data.media import MediaFormat
    from cast_ray.data.shards import shard_plan, write_index, write_shard
    from cast_ray.data.synthetic import write_dataset

    clips = write_dataset(
        folder / "clips",
        layout="ssv2",
        train_clips=case.epoch_steps * case.global_batch,
        validation_clips=case.batch * case.workers,
        size=FRAME_SIZE,
        num_frames=CLIP_FRAMES,
    )
    manifest, media_format = read_ssv2(clips.videos, clips.annotations), MediaFormat()
    root = str(folder / "shards")
    shards = [write_shard(root, plan.path, stored_clips(plan.clips, media_format)) for plan in shard_plan(manifest)]
    return write_index(root, manifest, media_format, shards).uri


def plan_of(config: RunConfig, dataset: ShardedDataset) -> PassPlan:
    """The plan of the training split, as `cast_ray.training.trainer` makes it."""
    from cast_ray.data.manifest import TRAIN
    from cast_ray.data.pipeline import PassPlan

    order = EpochPlan(
        num_clips=dataset.split(TRAIN).num_rows,
        seed=config.seed,
        micro_batch=config.batch.micro_batch,
        micro_batches_per_step=config.batch.micro_batches_per_step,
        world_size=config.scale.num_workers,
    )
    return PassPlan(order=order, epochs=config.optim.epochs, clips_per_task=config.data.clips_per_task)


def first_micro_batches(config: RunConfig, dataset: ShardedDataset, rank: int) -> list[Batch]:
    """All micro batches of one rank in the first epoch, decoded in this process as decode workers do it."""
    from cast_ray.data.loader import ROW_COLUMNS, clip_loader
    from cast_ray.data.manifest import TRAIN
    from cast_ray.data.pipeline import ORDER_COLUMNS, PassSource, expect_rows
    from cast_ray.data.views import TrainView, frame_sampling

    view = TrainView(
        sampling=frame_sampling(config),
        seed=config.seed,
        crop_area=config.augment.crop_area,
        crop_ratio=config.augment.crop_ratio,
    )
    plan, loader = plan_of(config, dataset), clip_loader(dataset, config, view, ORDER_COLUMNS)
    source = PassSource(dataset.split(TRAIN).select(ROW_COLUMNS), plan, Position)
    tasks = source.get_read_tasks(1)[rank :: plan.order.world_size]
    decoded = (loader(rows) for task in tasks for rows in task())
    batches = (batch for block in decoded for batch in _cut(block, config.batch.micro_batch))
    wanted = (place for place in plan.order.micro_batches(0) if place.rank == rank)
    found = []
    for place in wanted:
        batch = next(batches)
        expect_rows(batch, (0, place))
        found.append(batch)
    return found


def _cut(block: Batch, size: int) -> Iterator[Batch]:
    for first in range(0, len(block["clip"]), size):
        yield {name: column[first : first + size] for name, column in block.items()}
