"""What one training worker does: epochs of steps, validation, checkpoints.

The loop keeps no random state. Everything random is keyed by seed, epoch and place in the order, so that a resumed run
draws what the undisturbed one would have drawn.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import ray.train
import torch
import torch.distributed as dist
from torch import Tensor

from cast_ray.config import RunConfig
from cast_ray.data.mixup import Mixing, mix
from cast_ray.data.order import PADDING, Position
from cast_ray.data.pipeline import broken_sounds, check_unreadable, iterate_run, unreadable_clips
from cast_ray.data.randomness import rng_for
from cast_ray.errors import UserError
from cast_ray.training.agreement import Notice, agree
from cast_ray.training.bad_loss import ADVICE, BadLosses
from cast_ray.training.checkpoint import CheckpointState
from cast_ray.training.folder import data_position
from cast_ray.training.losses import soft_cross_entropy
from cast_ray.training.meter import Meter
from cast_ray.training.metrics import score
from cast_ray.training.stopping import worker_asked_to_end
from cast_ray.training.validation import forward, labels_and_valid, validate
from cast_ray.training.watchdog import Watchdog
from cast_ray.training.worker import Worker, WorkerJob, make_watchdog, set_up
from cast_ray.watching.startup import DATA, MODEL, STEP

__all__ = ["TRAIN_SHARD", "Epoch", "train_worker"]

TRAIN_SHARD = "train"
"""Name under which the worker finds its shard of the training split."""


class _Stopped(Exception):  # noqa: N818
    """All workers leave the loop, because the driver was asked to stop; a checkpoint is written."""


def train_worker(params: dict[str, Any]) -> dict[str, Any]:
    """Entry point for Ray Train: `params["job"]` is a `WorkerJob`.

    Returns:
        {}, or {"step": updates done} if the driver was asked to stop, or {"user_error": text}. A user's mistake is
        returned and not raised: all workers leave at the same point, and a raised one would be retried and shown with
        a stack trace.
    """
    job: WorkerJob = params["job"].for_workers(dist.get_world_size())
    try:
        with contextlib.closing(make_watchdog(job)) as watchdog:
            return _train(job, watchdog)
    except UserError as error:
        return {"user_error": str(error)}


def _train(job: WorkerJob, watchdog: Watchdog) -> dict[str, Any]:
    worker, start = set_up(job, watchdog)
    worker.log.reached(MODEL)
    outcome: dict[str, Any] = {}
    # All workers get these two together. After any other error some may still wait for this one: no cleaning up then.
    try:
        _train_epochs(worker, start)
    except _Stopped as stopped:
        outcome = {"step": stopped.args[0]}
    except UserError as error:
        outcome = {"user_error": str(error)}
    try:
        worker.saving.wait()
    finally:
        worker.close()
    return outcome


def _train_epochs(worker: Worker, start: Position) -> None:
    config = worker.job.config
    shard = ray.train.get_dataset_shard(TRAIN_SHARD)
    plan = worker.job.train_plan
    first = data_position(start, plan.order.steps_per_epoch)
    stream = iterate_run(shard, plan=plan, rank=worker.rank, start=first)
    for epoch in range(start.epoch, config.optim.epochs):
        Epoch(worker, epoch).train(stream, start.step if epoch == start.epoch else 0)
        done = epoch + 1
        if done % config.validate_every == 0 or done == config.optim.epochs:
            validation = validate(worker, epoch)
            step = done * plan.order.steps_per_epoch
            worker.log.post({"kind": "epoch", "epoch": done, "step": step, "validation": validation})
            _save(worker, Position(epoch=done, step=0), validation)


def _save(worker: Worker, position: Position, validation: dict[str, float] | None = None) -> None:
    """Begin to write a checkpoint; `position` is the next step. A collective."""
    job = worker.job
    worker.watchdog.beat("taking a checkpoint")
    state = CheckpointState(
        position=position,
        config=job.config.to_dict(),
        label_map=job.label_map,
        dataset=job.dataset,
        frozen=worker.frozen,
        validation=validation or {},
    )
    tensors = worker.strategy.state(keep=worker.rank == 0)
    worker.saving.save(state, tensors, worker.log.rows, None if validation is None else score(validation))


class Epoch:
    """One epoch of one worker, or the rest of one."""

    def __init__(self, worker: Worker, epoch: int) -> None:
        self._worker = worker
        self._epoch = epoch
        self._plan = plan = worker.job.train_plan.order
        self._meter = Meter(worker.strategy.device)
        micro_batches = plan.steps_per_epoch * plan.micro_batches_per_step
        policy = worker.job.config.optim.on_bad_loss
        self._bad_losses = BadLosses(policy, worker.log, epoch=epoch, micro_batches=micro_batches)
        self._unreadable = worker.log.unreadable_in(epoch, plan.steps_per_epoch)
        self._found: dict[str, str] = {}
        self._soundless: dict[str, str] = {}
        self._news = Notice()

    def train(self, stream: Iterator[dict[str, np.ndarray]], first_step: int) -> None:
        """Take the epoch's steps from `first_step` on from the stream. A collective."""
        worker, plan = self._worker, self._plan
        batches = itertools.islice(stream, (plan.steps_per_epoch - first_step) * plan.accumulation)
        for batch in self._meter.timed(batches):
            worker.watchdog.beat("training")
            worker.log.reached(DATA)
            step = int(batch["step"][0])
            done = self._epoch * plan.steps_per_epoch + step + 1
            loss, counts = self._checked_loss(batch, step)
            worker.strategy.step(loss * plan.loss_weight, float(worker.learning_rates[done - 1]))
            self._found |= unreadable_clips(batch)
            self._soundless |= broken_sounds(batch)
            clips = int((batch["clip"] != PADDING).sum()) if counts else 0
            unreadable = clips - int(batch["valid"].sum()) if counts else 0
            self._meter.add(loss, rows=len(batch["clip"]), clips=clips, unreadable=unreadable)
            if batch["accumulation"][0] == plan.accumulation - 1:
                worker.watchdog.begin()
                worker.log.reached(STEP)
                self._after_step(step, done)
            worker.watchdog.beat("waiting for data")

    def _checked_loss(self, batch: dict[str, np.ndarray], step: int) -> tuple[Tensor, bool]:
        """The loss of a micro batch, and whether the micro batch counts; if not, its gradient is zero."""
        worker, device = self._worker, self._worker.strategy.device
        loss = _loss(worker, batch, self._epoch)
        bad = not _is_finite(loss)
        self._news = news = agree(self._notice(bad), device)
        if news.written:
            worker.saving.report()
        if not news.bad_loss:
            self._bad_losses.none()
            return loss, True
        self._bad_losses.found(batch["clip_id"][batch["clip"] != PADDING].tolist() if bad else [], step)
        # All workers compute again, for ZeRO 3 gathers weights together in every forward pass.
        loss = _loss(worker, batch, self._epoch, blank=bad)
        if agree(Notice(bad_loss=not _is_finite(loss)), device).bad_loss:
            raise UserError(f"the loss is not finite even on blank clips, so the weights are not any more; {ADVICE}")
        return loss, not bad

    def _notice(self, bad_loss: bool) -> Notice:
        worker = self._worker
        return Notice(
            bad_loss=bad_loss,
            stop=worker.listener is not None and worker.listener.signal is not None,
            leave=worker_asked_to_end(),
            written=worker.saving.written,
            look=worker.rank == 0 and worker.preemption.due,
        )

    def _after_step(self, step: int, done: int) -> None:
        """What is due after an update: a row, a checkpoint, the end. `done` counts updates of the run."""
        worker, config, news = self._worker, self._worker.job.config, self._news
        ends = step == self._plan.steps_per_epoch - 1
        validated = ends and ((self._epoch + 1) % config.validate_every == 0 or self._epoch + 1 == config.optim.epochs)
        every = config.checkpoint_every
        due = every is not None and done % every == 0 and not validated
        # Not in place of the others: looking is a collective.
        save = self._machine_goes() or news.stop or news.leave or due
        # A row with every checkpoint: what is measured between two rows is then never cut in two by a restart.
        if save or ends or done % config.log_every == 0:
            self._log(done)
        if save:
            _save(worker, Position(epoch=self._epoch, step=step + 1))
        if news.stop:
            raise _Stopped(done)
        if news.leave:
            worker.saving.settle()
            raise RuntimeError(f"a worker got SIGTERM; all have left after step {done}, with a checkpoint")

    def _machine_goes(self) -> bool:
        """Whether Ray has newly announced that it is about to take a machine away. A collective when it is time."""
        if not self._news.look:
            return False
        ranks = self._worker.preemption.look()
        if ranks and self._worker.rank == 0:
            self._worker.log.say(f"Ray is taking away the machines of the workers {ranks}; writing a checkpoint")
        return bool(ranks)

    def _log(self, done: int) -> None:
        """A row about the steps since the last one, and about the clips that could not be read. A collective."""
        worker, plan = self._worker, self._plan
        interval = self._meter.reduce()
        if worker.inputs.sound:
            worker.log.soundless(self._soundless, self._epoch)
            self._soundless.clear()
        if interval.unreadable:
            self._unreadable += interval.unreadable
            worker.log.unreadable(self._found, self._epoch)
            self._found.clear()
        worker.log.step(
            interval,
            done=done,
            steps=len(worker.learning_rates),
            epoch=done / plan.steps_per_epoch,
            rate=float(worker.learning_rates[done - 1]),
            grad_norm=worker.strategy.grad_norm,
        )
        if interval.unreadable:
            check_unreadable(self._unreadable, plan.rows_per_epoch, worker.job.config.data.max_unreadable, TRAIN_SHARD)


def _loss(worker: Worker, batch: dict[str, np.ndarray], epoch: int, *, blank: bool = False) -> Tensor:
    """The loss of one micro batch, with everything random about it keyed by its place in the order.

    Args:
        worker: of this process.
        batch: as the pipeline delivers it.
        epoch: counted from 0.
        blank: take zeros that do not count instead of the clips, for a gradient of exactly 0.
    """
    config, plan = worker.job.config, worker.job.train_plan.order
    place = int(batch["accumulation"][0]) * plan.world_size + worker.rank
    rng = rng_for(config.seed, epoch, f"step {batch['step'][0]} micro batch {place}", "batch")
    labels, valid = labels_and_valid(worker, batch)
    inputs, targets = mix(
        worker.inputs.training(batch, worker.augment, epoch),
        labels,
        valid,
        num_classes=worker.job.label_map.num_classes,
        mixing=_mixing(config),
        smoothing=config.optim.label_smoothing,
        rng=rng,
    )
    if blank:
        inputs = {name: torch.zeros_like(value) for name, value in inputs.items()}
    torch.manual_seed(int(rng.integers(2**62)))  # drop path is the only thing that draws from torch
    loss = soft_cross_entropy(forward(worker, inputs), targets, valid)
    # Not masked by `valid`, which would hide what weights that are not finite make of blank clips.
    return loss * 0.0 if blank else loss


def _is_finite(loss: Tensor) -> bool:
    return math.isfinite(loss.item())


def _mixing(config: RunConfig) -> Mixing:
    augment = config.augment
    return Mixing(
        probability=augment.mixup_probability,
        mixup_alpha=augment.mixup_alpha,
        cutmix_alpha=augment.cutmix_alpha,
        cutmix_switch=augment.cutmix_switch,
        sound=config.audio.mixing,
    )
