"""What one path of the input pipeline costs, ours or a DataLoader; runs in a process of its own."""

from __future__ import annotations

import functools
import itertools
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cast_ray.bench.data_work import Work, bare_loop, peak_memory, steady
from cast_ray.data import augment, shards
from cast_ray.data.augment import RandAugmentSpec, TrainAugment
from cast_ray.data.decode import Decoder, Video, open_media
from cast_ray.data.loader import ClipLoader
from cast_ray.data.manifest import TRAIN
from cast_ray.data.order import EpochPlan, Position
from cast_ray.data.views import CentreView, Sampling, TrainView, View
from cast_ray.models.named import NAMED

if TYPE_CHECKING:
    import pyarrow as pa
    import ray.data

    from cast_ray.data.pipeline import PassPlan

__all__ = ["PATHS", "SAMPLING", "DataJob", "DataPath", "measure_path"]

MODEL = "cast_base_patch16_224"
"""16 frames of 224 x 224."""
SAMPLING = Sampling(
    kind="uniform", num_frames=NAMED[MODEL].video.num_frames, stride=1, size=NAMED[MODEL].video.image_size
)
MOST_CLIPS_PER_SECOND = 400
"""Faster than any path on a few cores: so many clips are planned."""
OBJECT_STORE = 2 * 2**30
EXECUTIONS = 3
RAND_AUGMENT = "rand-m7-n4-mstd0.5-inc1"


class DataPath(NamedTuple):
    """How clips come from disk to the model's device."""

    stored: str | None
    """The shards' `MediaFormat.video`; None: a DataLoader over video files."""
    augments: bool
    """Whether colours are varied and normalised on the CPU too."""


PATHS: Mapping[str, DataPath] = MappingProxyType(
    {
        "dataloader-pil": DataPath(None, augments=True),
        "dataloader-tensor": DataPath(None, augments=True),
        "same-cpu": DataPath("original", augments=True),
        "short-gop": DataPath("short-gop", augments=False),
        "jpeg": DataPath("jpeg", augments=False),
    }
)


@dataclass(frozen=True, kw_only=True)
class DataJob:
    """One measurement."""

    path: str
    files: tuple[str, ...]
    datasets: Mapping[str, str]
    decoder: Decoder | None
    workers: int
    batch: int
    clips_per_task: int
    seconds: float
    """Of the steady stream; the bare loop takes half of it."""


def measure_path(job: DataJob) -> dict[str, Any]:
    """Speed, processor time, memory, bytes and stages of one path, of its stream and of its work by itself."""
    import torch

    torch.set_num_threads(1)
    result: dict[str, Any] = {}
    with peak_memory(result):
        stream = _dataloader(job) if PATHS[job.path].stored is None else _ours(job)
    bare = bare_loop(_work(job), workers=job.workers, seconds=job.seconds / 2)
    stages = bare.pop("seconds_per_clip")
    stages["transfer"] = job.workers / stream["clips_per_second"] - job.workers / bare["clips_per_second"]
    return (
        result
        | stream
        | {
            "bytes_read_per_clip": bare.pop("bytes_read_per_clip"),
            "seconds_per_clip": stages,
            "bare": bare,
            "overhead": 1 - stream["clips_per_second"] / bare["clips_per_second"],
        }
    )


def _dataloader(job: DataJob) -> dict[str, Any]:
    from cast_ray.bench.data_loaders import PilClips, TensorClips, endless_loader

    clips = (PilClips if job.path == "dataloader-pil" else TensorClips)(job.files)
    loader = endless_loader(clips, count=len(job.files), batch=job.batch, workers=job.workers)
    return steady(map(len, loader), wave=job.workers * job.batch, seconds=job.seconds)


def _ours(job: DataJob) -> dict[str, Any]:
    import ray

    begun = time.perf_counter()
    ray.init(
        address="local",
        num_cpus=job.workers,
        object_store_memory=OBJECT_STORE,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="error",
    )
    try:
        started = time.perf_counter() - begun
        shards_of = {plan: _shard(job, plan) for plan in (_plan(job), _plan(job, repeats=True))}
        result = ray.get(ray.remote(num_cpus=0)(_training_worker).remote(job, shards_of, os.getpid()))
    finally:
        ray.shutdown()
    return result | {"cluster_start_seconds": started}


def _training_worker(job: DataJob, shards_of: Mapping[PassPlan, ray.data.DataIterator], driver: int) -> dict[str, Any]:
    """The stream in a process of its own, as in training; then validations, for which the stream waits."""
    import torch

    from cast_ray.data.pipeline import iterate_once, iterate_run

    torch.set_num_threads(1)
    (plan, shard), (validation, validation_shard) = shards_of.items()
    consume = _Consumer() if PATHS[job.path].augments else _count
    result: dict[str, Any] = steady(
        map(consume, iterate_run(shard, plan=plan, rank=0, start=Position())),
        wave=job.workers * plan.batches_per_task * job.batch,
        seconds=job.seconds,
        root=driver,
    )
    passes = []
    for _ in range(EXECUTIONS):
        begun = time.perf_counter()
        arrived = [time.perf_counter() - begun for _ in iterate_once(validation_shard, plan=validation, rank=0)]
        passes.append({"first_batch_seconds": arrived[0], "last_batch_seconds": arrived[-1]})
    return result | {"validations": passes}


def _plan(job: DataJob, *, repeats: bool = False) -> PassPlan:
    from cast_ray.data.pipeline import PassPlan

    order = EpochPlan(
        num_clips=len(job.files),
        seed=0,
        micro_batch=job.batch,
        micro_batches_per_step=1,
        world_size=1,
        shuffle=not repeats,
    )
    clips = 2 * MOST_CLIPS_PER_SECOND * job.seconds
    epochs = None if repeats else -(-int(clips) // len(job.files))
    return PassPlan(order=order, epochs=epochs, clips_per_task=job.clips_per_task)


def _shard(job: DataJob, plan: PassPlan) -> ray.data.DataIterator:
    """The stream of one training worker, made as `cast_ray.training.trainer` makes it."""
    from ray.data import ExecutionOptions

    from cast_ray.data.pipeline import pass_dataset

    view = CentreView(sampling=SAMPLING) if plan.epochs is None else _train_view()
    dataset = _dataset(job)
    clips = pass_dataset(dataset, TRAIN, plan=plan, loader=_loader(job, view))
    clips.context.execution_options = ExecutionOptions(preserve_order=True)
    return clips.streaming_split(1, equal=True)[0]


def _dataset(job: DataJob) -> shards.ShardedDataset:
    return shards.open_complete(job.datasets[PATHS[job.path].stored or ""])


def _loader(job: DataJob, view: View) -> ClipLoader:
    from cast_ray.data.pipeline import ORDER_COLUMNS

    dataset = _dataset(job)
    return ClipLoader(root=dataset.uri, stored=dataset.format, view=view, columns=ORDER_COLUMNS, decoder=job.decoder)


def _train_view() -> TrainView:
    return TrainView(sampling=SAMPLING, seed=0, crop_area=(0.08, 1.0), crop_ratio=(0.75, 4 / 3))


def _count(batch: Mapping[str, np.ndarray]) -> int:
    if not batch["valid"].all():
        raise RuntimeError(f"clips could not be read: {set(batch['reason'])}")
    return len(batch["valid"])


class _Consumer:
    """What a training worker without a GPU does with the frames of a batch before the model sees them."""

    def __init__(self) -> None:
        self._augment = TrainAugment(seed=0, randaugment=RandAugmentSpec.parse(RAND_AUGMENT), flip_probability=0.5)

    def __call__(self, batch: Mapping[str, np.ndarray]) -> int:
        import torch

        frames = torch.from_numpy(np.array(batch["frames"]))
        clip_ids = batch["clip_id"].tolist()
        augment.normalise(self._augment(frames, clip_ids, [0] * len(clip_ids), 0), NAMED[MODEL].video)
        return _count(batch)


@dataclass(frozen=True)
class _Blocks:
    """Our loader on the same blocks that Ray Data gives it, and what a CPU then does with them."""

    loader: ClipLoader
    blocks: tuple[pa.Table, ...]
    batch: int
    augments: bool

    def __call__(self, number: int) -> int:
        block = self.loader(self.blocks[number % len(self.blocks)])
        if not self.augments:
            return _count(block)
        batches = [
            {name: column[first : first + self.batch] for name, column in block.items()}
            for first in range(0, len(block["valid"]), self.batch)
        ]
        return sum(map(self._consume, batches))

    @functools.cached_property
    def _consume(self) -> _Consumer:
        return _Consumer()

    def stages(self) -> Mapping[str, tuple[Callable[..., Any], ...]]:
        stages: dict[str, tuple[Callable[..., Any], ...]] = {
            "read": (shards.read_media,),
            "decode": (open_media, Video.frames),
            "crop": (TrainView.crop,),
        }
        return stages | ({"augment": (TrainAugment.__call__, augment.normalise)} if self.augments else {})


def _work(job: DataJob) -> Work:
    from cast_ray.bench.data_loaders import PilClips, TensorClips
    from cast_ray.data.pipeline import PassSource

    path = PATHS[job.path]
    if path.stored is None:
        return (PilClips if job.path == "dataloader-pil" else TensorClips)(job.files)
    source = PassSource(_dataset(job).split(TRAIN), _plan(job), Position)
    tasks = itertools.islice(source.get_read_tasks(1), 64)
    return _Blocks(
        loader=_loader(job, _train_view()),
        blocks=tuple(block for task in tasks for block in task()),
        batch=job.batch,
        augments=path.augments,
    )
