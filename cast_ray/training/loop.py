"""What one training worker does: epochs of steps, validation, checkpoints.

The loop keeps no random state. Everything random is keyed by seed, epoch and place in the order, so that a resumed run
draws what the undisturbed one would have drawn.
"""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
import ray.train
import ray.train.torch
import torch
import torch.distributed as dist
from ray.actor import ActorHandle
from torch import Tensor

from cast_ray.config import RunConfig
from cast_ray.data.augment import RandAugmentSpec, TrainAugment
from cast_ray.data.fbank import SpectrogramMasks
from cast_ray.data.inputs import Augment, InputMaker, in_precision
from cast_ray.data.mixup import mix
from cast_ray.data.order import PADDING, Position
from cast_ray.data.pipeline import (
    PassPlan,
    broken_sounds,
    check_unreadable,
    iterate_once,
    iterate_run,
    unreadable_clips,
)
from cast_ray.data.randomness import rng_for
from cast_ray.errors import UserError
from cast_ray.labels import LabelMap
from cast_ray.models.named import spec_of
from cast_ray.training.build import build_network
from cast_ray.training.checkpoint import CheckpointState, SavedRun, load_weights, read_run, write_checkpoint
from cast_ray.training.continuing import check_continues
from cast_ray.training.losses import soft_cross_entropy
from cast_ray.training.meter import Interval, Meter
from cast_ray.training.metrics import ValidationCounts, score
from cast_ray.training.schedule import learning_rates

if TYPE_CHECKING:
    from cast_ray.models.network import Network
    from cast_ray.training.progress import Row
    from cast_ray.training.strategy import DeepSpeedStrategy

Value = TypeVar("Value")

__all__ = ["SCORE", "TRAIN_SHARD", "VALIDATION_SHARD", "WorkerJob", "train_worker"]

TRAIN_SHARD, VALIDATION_SHARD = "train", "validation"
"""Names under which the worker finds its shards of the two splits."""

SCORE = "score"
"""Name of the reported metric by which checkpoints are ranked."""


@dataclass(frozen=True, kw_only=True)
class WorkerJob:
    """What the driver hands to every worker."""

    config: RunConfig
    label_map: LabelMap
    dataset: str
    """Fingerprint of the dataset."""
    train_plan: PassPlan
    validation_plan: PassPlan
    board: ActorHandle
    """Where rows of the history go; see `cast_ray.training.progress`."""


@dataclass(frozen=True, kw_only=True)
class _Worker:
    """The fixed parts of one worker."""

    job: WorkerJob
    rank: int
    strategy: DeepSpeedStrategy
    frozen: str
    inputs: InputMaker
    augment: Augment
    learning_rates: np.ndarray
    history: list[Row]


def train_worker(params: dict[str, Any]) -> dict[str, Any]:
    """Entry point for Ray Train: `params["job"]` is a `WorkerJob`.

    Returns:
        {} or {"user_error": text}. A user's mistake is returned and not raised: all workers leave at the same point,
        and a raised one would be retried and shown with a stack trace.
    """
    try:
        _train(params["job"])
    except UserError as error:
        return {"user_error": str(error)}
    return {}


def _train(job: WorkerJob) -> None:
    worker, start = _set_up(job)
    shard = ray.train.get_dataset_shard(TRAIN_SHARD)
    stream = iterate_run(shard, plan=job.train_plan, rank=worker.rank, start=start)
    try:
        for epoch in range(start.epoch, job.config.optim.epochs):
            _train_epoch(worker, stream, epoch, start.step if epoch == start.epoch else 0)
            done = epoch + 1
            if done % job.config.validate_every == 0 or done == job.config.optim.epochs:
                _validate_and_save(worker, epochs_done=done)
    except UserError:  # found by all workers together; after any other error the others may still wait in a collective
        worker.strategy.close()
        raise
    worker.strategy.close()


def _set_up(job: WorkerJob) -> tuple[_Worker, Position]:
    config = job.config
    if config.scale.use_gpu:
        torch.cuda.set_device(ray.train.torch.get_device())  # NCCL gathers objects through the current device
    else:
        os.environ["DS_ACCELERATOR"] = "cpu"  # DeepSpeed, imported below, would take a GPU if the machine has one
        torch.set_num_threads(max(1, int(config.scale.cpus_per_worker)))
    # DeepSpeed and timm take seconds to import; the controller, which unpickles this module, needs neither.
    from cast_ray.models.groups import parameter_groups
    from cast_ray.training.strategy import DeepSpeedStrategy, deepspeed_config

    network, frozen, resumed = _together(lambda: _load(job))
    strategy = DeepSpeedStrategy(
        network,
        parameter_groups(network, weight_decay=config.optim.weight_decay, layer_decay=config.optim.layer_decay),
        betas=config.optim.betas,
        config=deepspeed_config(
            precision=config.scale.precision,
            zero_stage=config.scale.zero_stage,
            micro_batch=config.batch.micro_batch,
            accumulation=job.train_plan.order.accumulation,
            clip_grad=config.optim.clip_grad,
        ),
    )
    if resumed is not None:
        strategy.load_state(resumed.tensors)
    worker = _Worker(
        job=job,
        rank=dist.get_rank(),
        strategy=strategy,
        frozen=frozen,
        inputs=InputMaker(spec_of(config.model), strategy.device),
        augment=train_augment(config),
        learning_rates=_schedule(job),
        history=[] if resumed is None else resumed.history,
    )
    return worker, Position() if resumed is None else resumed.state.position


def _load(job: WorkerJob) -> tuple[Network, str, SavedRun | None]:
    """The network with its weights, the fingerprint of the frozen ones, and the latest checkpoint's contents."""
    network, frozen = build_network(job.config.model, job.config.weights, job.label_map, seed=job.config.seed)
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        return network, frozen, None
    with checkpoint.as_directory() as name:
        saved = read_run(Path(name))
        check_continues(saved.state, job.config, job.label_map, job.dataset)
        load_weights(Path(name), network, frozen=frozen)
    return network, frozen, saved


def _together(work: Callable[[], Value]) -> Value:
    """Do `work`; if it is a `UserError` on any worker, raise it on all. A collective.

    A weights file may be missing on one node only. The other workers must not wait for that one in the next collective.
    """
    result, message = None, None
    try:
        result = work()
    except UserError as error:
        message = str(error)
    messages = [text for text in _gather(message) if text is not None]
    if messages:
        raise UserError(messages[0])
    return cast(Value, result)


def train_augment(config: RunConfig) -> Augment:
    """The augmentation that a configuration describes; a malformed RandAugment text is a `UserError`."""
    text, audio = config.augment.rand_augment, config.audio
    return Augment(
        frames=TrainAugment(
            seed=config.seed,
            randaugment=None if text is None else RandAugmentSpec.parse(text),
            flip_probability=config.augment.flip,
        ),
        spectrogram=SpectrogramMasks(
            seed=config.seed,
            time_masks=audio.time_masks,
            time_mask_columns=audio.time_mask_columns,
            frequency_masks=audio.frequency_masks,
            frequency_mask_bins=audio.frequency_mask_bins,
            mask_share=audio.mask_share,
        ),
    )


def _schedule(job: WorkerJob) -> np.ndarray:
    optim, batch = job.config.optim, job.config.batch
    steps_per_epoch = job.train_plan.order.steps_per_epoch
    return learning_rates(
        steps=optim.epochs * steps_per_epoch,
        warmup_steps=round(optim.warmup_epochs * steps_per_epoch),
        peak=optim.peak_lr(batch.global_batch),
        final=optim.last_lr(batch.global_batch),
    )


def _train_epoch(worker: _Worker, stream: Iterator[dict[str, np.ndarray]], epoch: int, first_step: int) -> None:
    """Take the rest of an epoch from the stream."""
    job, plan, meter = worker.job, worker.job.train_plan.order, Meter(worker.strategy.device)
    batches = itertools.islice(stream, (plan.steps_per_epoch - first_step) * plan.accumulation)
    found: dict[str, str] = {}
    soundless: dict[str, str] = {}
    unreadable = 0
    for batch in meter.timed(batches):
        step = int(batch["step"][0])
        done = epoch * plan.steps_per_epoch + step + 1
        loss = _loss(worker, batch, epoch)
        worker.strategy.step(loss, float(worker.learning_rates[done - 1]))
        newly_found = unreadable_clips(batch)
        found |= newly_found
        soundless |= broken_sounds(batch)
        clips = int((batch["clip"] != PADDING).sum())
        meter.add(loss, rows=len(batch["clip"]), clips=clips, unreadable=len(newly_found))
        if batch["accumulation"][0] < plan.accumulation - 1:
            continue
        if done % job.config.log_every == 0 or step == plan.steps_per_epoch - 1:
            interval = meter.reduce()
            _log_step(worker, interval, done)
            if interval.unreadable:
                unreadable += interval.unreadable
                _log_unreadable(worker, found, epoch)
                found.clear()
                check_unreadable(unreadable, plan.num_clips, job.config.data.max_unreadable, TRAIN_SHARD)
    _log_soundless(worker, soundless, epoch)


def _loss(worker: _Worker, batch: dict[str, np.ndarray], epoch: int) -> Tensor:
    """The loss of one micro batch, with everything random about it keyed by its place in the order."""
    config, plan = worker.job.config, worker.job.train_plan.order
    place = int(batch["accumulation"][0]) * plan.world_size + worker.rank
    rng = rng_for(config.seed, epoch, f"step {batch['step'][0]} micro batch {place}", "batch")
    labels, valid = _to_device(worker, batch)
    inputs, targets = mix(
        worker.inputs.training(batch, worker.augment, epoch),
        labels,
        valid,
        num_classes=worker.job.label_map.num_classes,
        alpha=config.augment.mixup_alpha,
        probability=config.augment.mixup_probability,
        smoothing=config.optim.label_smoothing,
        rng=rng,
        sound=config.audio.mixing,
    )
    torch.manual_seed(int(rng.integers(2**62)))  # drop path is the only thing that draws from torch
    return soft_cross_entropy(_forward(worker, inputs), targets, valid)


def _forward(worker: _Worker, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Logits per label field [B, C]."""
    return worker.strategy.engine(in_precision(inputs, worker.strategy.dtype))


def _to_device(worker: _Worker, batch: dict[str, np.ndarray]) -> tuple[dict[str, Tensor], Tensor]:
    """Labels per field [B], valid [B]."""
    device = worker.strategy.device
    columns = torch.from_numpy(batch["labels"].astype(np.int64)).to(device)
    labels = {field: columns[:, i] for i, field in enumerate(worker.job.label_map.fields)}
    return labels, torch.from_numpy(batch["valid"].astype(bool)).to(device)


def _log_step(worker: _Worker, interval: Interval, done: int) -> None:
    """Rank 0 keeps and posts one row about the steps since the last one; `done` counts updates of the run."""
    if worker.rank:
        return
    rates, plan = worker.learning_rates, worker.job.train_plan.order
    previous = next((row["step"] for row in reversed(worker.history) if row["kind"] == "step"), 0)
    _post(
        worker,
        {
            "kind": "step",
            "step": done,
            "epoch": done / plan.steps_per_epoch,
            "loss": interval.loss,
            "learning_rate": float(rates[done - 1]),
            "clips_per_s": interval.clips_per_s,
            "data_wait": interval.data_wait,
            "grad_norm": worker.strategy.grad_norm,
            "seconds_left": interval.seconds / max(done - previous, 1) * (len(rates) - done),
        },
    )


def _log_unreadable(worker: _Worker, found: dict[str, str], epoch: int) -> None:
    """Rank 0 keeps and posts every worker's newly found unreadable clips. A collective."""
    everywhere = _gather(found)
    if worker.rank:
        return
    for clips in everywhere:
        for clip_id, reason in sorted(clips.items()):
            _post(worker, {"kind": "unreadable", "epoch": epoch, "clip_id": clip_id, "reason": reason})


def _log_soundless(worker: _Worker, found: dict[str, str], epoch: int) -> None:
    """Rank 0 keeps and posts, once per run, every clip with broken sound. A collective of networks that take sound."""
    if not worker.inputs.sound:
        return
    everywhere = _gather(found)
    if worker.rank:
        return
    known = {row["clip_id"] for row in worker.history if row["kind"] == "soundless"}
    for clip_id, reason in sorted(clip for clips in everywhere for clip in clips.items() if clip[0] not in known):
        _post(worker, {"kind": "soundless", "epoch": epoch, "clip_id": clip_id, "reason": reason})


def _gather(value: Value) -> list[Value]:
    """Every worker's value, by rank. A collective."""
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def _post(worker: _Worker, row: Row) -> None:
    worker.history.append(row)
    worker.job.board.post.remote(row)


def _validate_and_save(worker: _Worker, *, epochs_done: int) -> None:
    job, plan = worker.job, worker.job.train_plan.order
    validation = _validate(worker, epochs_done - 1)
    if worker.rank == 0:
        step = epochs_done * plan.steps_per_epoch
        _post(worker, {"kind": "epoch", "epoch": epochs_done, "step": step, "validation": validation})
    tensors = worker.strategy.state()
    metrics = {"epoch": epochs_done, SCORE: score(validation), **validation}
    if worker.rank:
        ray.train.report(metrics)
        return
    with tempfile.TemporaryDirectory() as folder:
        state = CheckpointState(
            position=Position(epoch=epochs_done, step=0),
            config=job.config.to_dict(),
            label_map=job.label_map,
            dataset=job.dataset,
            frozen=worker.frozen,
            validation=validation,
        )
        write_checkpoint(Path(folder), state, tensors, worker.history)
        ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(folder))


@torch.no_grad()
def _validate(worker: _Worker, epoch: int) -> dict[str, float]:
    """Metrics of the whole validation split, one central view of each clip. A collective."""
    job, strategy = worker.job, worker.strategy
    found: dict[str, str] = {}
    soundless: dict[str, str] = {}
    counts = ValidationCounts(job.label_map.fields, strategy.device)
    strategy.engine.eval()
    shard = ray.train.get_dataset_shard(VALIDATION_SHARD)
    for batch in iterate_once(shard, plan=job.validation_plan, rank=worker.rank):
        labels, valid = _to_device(worker, batch)
        counts.add(_forward(worker, worker.inputs.evaluation(batch)), labels, valid)
        found |= unreadable_clips(batch)
        soundless |= broken_sounds(batch)
    strategy.engine.train()
    _log_soundless(worker, soundless, epoch)
    unreadable = sum(len(clips) for clips in _gather(found))
    if unreadable:
        _log_unreadable(worker, found, epoch)
        check_unreadable(
            unreadable, job.validation_plan.order.num_clips, job.config.data.max_unreadable, VALIDATION_SHARD
        )
    return counts.reduce()
