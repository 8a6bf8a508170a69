"""What one training worker consists of, and how it gets ready to train."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import ray.train
import ray.train.torch
import torch
import torch.distributed as dist
from ray.actor import ActorHandle

from cast_ray.config import RunConfig
from cast_ray.data.augment import RandAugmentSpec, TrainAugment
from cast_ray.data.erasing import RandomErasing
from cast_ray.data.fbank import SpectrogramMasks
from cast_ray.data.inputs import Augment, InputMaker
from cast_ray.data.order import Position
from cast_ray.data.pipeline import PassPlan
from cast_ray.labels import LabelMap
from cast_ray.models.named import spec_of
from cast_ray.training.agreement import together
from cast_ray.training.build import build_network
from cast_ray.training.checkpoint import SavedRun, load_weights, read_run
from cast_ray.training.continuing import check_continues
from cast_ray.training.folder import remove_leftovers
from cast_ray.training.history import RunLog
from cast_ray.training.saving import Saving
from cast_ray.training.schedule import rates_of_run
from cast_ray.training.stopping import Preemption, StopListener
from cast_ray.training.watchdog import Watchdog
from cast_ray.watching.startup import WORKERS

if TYPE_CHECKING:
    from cast_ray.models.network import Network
    from cast_ray.training.strategy import DeepSpeedStrategy

__all__ = ["START_FACTOR", "Worker", "WorkerJob", "make_strategy", "make_watchdog", "set_up", "train_augment"]

START_FACTOR = 3
"""Times the ordinary limit that the watchdog allows until the first update is done."""
LAST_WORD_S = 10.0
"""Seconds in which a worker that hangs can still say so."""


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
    """Where rows of the history go; see `cast_ray.watching.rows`."""

    def for_workers(self, world_size: int) -> WorkerJob:
        """The same job, divided among as many workers as there really are."""
        return dataclasses.replace(
            self,
            train_plan=self.train_plan.for_workers(world_size),
            validation_plan=self.validation_plan.for_workers(world_size),
        )


@dataclass(frozen=True, kw_only=True)
class Worker:
    """The fixed parts of one worker."""

    job: WorkerJob
    rank: int
    strategy: DeepSpeedStrategy
    frozen: str
    """Fingerprint of the frozen weights."""
    inputs: InputMaker
    augment: Augment
    learning_rates: np.ndarray
    """Of every update of the run."""
    log: RunLog
    saving: Saving
    watchdog: Watchdog
    preemption: Preemption
    listener: StopListener | None
    """On rank 0 only."""

    def close(self) -> None:
        """Let go of the process group and the board, so that another run may start in this process."""
        if self.listener is not None:
            self.listener.close()
        self.strategy.close()


def make_watchdog(job: WorkerJob) -> Watchdog:
    """The watchdog of this worker, started."""
    limit_s = job.config.scale.hang_timeout_s
    log = RunLog(dist.get_rank(), job.board, [])
    log.reached(WORKERS)

    def say(text: str) -> None:
        log.say(text, within_s=LAST_WORD_S)  # the process ends after it

    return Watchdog(limit_s=limit_s, start_limit_s=START_FACTOR * limit_s, say=say)


def set_up(job: WorkerJob, watchdog: Watchdog) -> tuple[Worker, Position]:
    """A worker that is ready to train, and the position at which it goes on. A collective.

    Raises:
        UserError: weights, or the checkpoint, do not fit; on all workers.
    """
    config = job.config
    rank = dist.get_rank()
    if config.scale.use_gpu:
        torch.cuda.set_device(ray.train.torch.get_device())  # NCCL gathers objects through the current device
    else:
        os.environ["DS_ACCELERATOR"] = "cpu"  # DeepSpeed, imported below, would take a GPU if the machine has one
        torch.set_num_threads(max(1, int(config.scale.cpus_per_worker)))
    network, frozen, resumed = together(lambda: _load(job))
    strategy = make_strategy(job, network)
    if resumed is not None:
        strategy.load_state(resumed.tensors)
    log = RunLog(rank, job.board, [] if resumed is None else resumed.history)
    planned, workers = config.scale.num_workers, dist.get_world_size()
    if rank == 0 and config.scale.min_workers is not None:
        log.say(f"{workers} of up to {planned} workers train")
    storage = ray.train.get_context().get_storage()
    if rank == 0:
        remove_leftovers(storage.storage_filesystem, storage.experiment_fs_path)
    worker = Worker(
        job=job,
        rank=rank,
        strategy=strategy,
        frozen=frozen,
        inputs=InputMaker(spec_of(config.model), strategy.device),
        augment=train_augment(config),
        learning_rates=rates_of_run(
            config.optim, global_batch=config.batch.global_batch, steps_per_epoch=job.train_plan.order.steps_per_epoch
        ),
        log=log,
        saving=Saving(
            rank=rank,
            storage=storage,
            retry_s=config.checkpoint_retry_s,
            say=log.say,
            beat=watchdog.beat,
            device=strategy.device,
        ),
        watchdog=watchdog,
        preemption=Preemption(),
        listener=StopListener(job.board) if rank == 0 else None,
    )
    return worker, Position() if resumed is None else resumed.state.position


def make_strategy(job: WorkerJob, network: Network) -> DeepSpeedStrategy:
    """The network with the optimiser and the engine that the configuration describes; a process group must exist."""
    # DeepSpeed and timm take seconds to import; the controller, which unpickles this module, needs neither.
    from cast_ray.models.groups import parameter_groups
    from cast_ray.training.strategy import DeepSpeedStrategy, deepspeed_config

    config, optim = job.config, job.config.optim
    return DeepSpeedStrategy(
        network,
        parameter_groups(network, weight_decay=optim.weight_decay, layer_decay=optim.layer_decay),
        betas=optim.betas,
        momentum=optim.momentum if optim.kind == "sgd" else None,
        ema_decay=optim.ema_decay,
        compiler="inductor" if config.scale.compile else None,
        config=deepspeed_config(
            precision=config.scale.precision,
            zero_stage=config.scale.zero_stage,
            micro_batch=config.batch.micro_batch,
            accumulation=job.train_plan.order.accumulation,
            clip_grad=optim.clip_grad,
            trainable=sum(weight.numel() for weight in network.parameters() if weight.requires_grad),
            offload_optimizer=config.scale.offload_optimizer,
        ),
    )


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


def train_augment(config: RunConfig) -> Augment:
    """The augmentation that a configuration describes; a malformed RandAugment text is a `UserError`."""
    augment, audio = config.augment, config.audio
    return Augment(
        frames=TrainAugment(
            seed=config.seed,
            randaugment=None if augment.rand_augment is None else RandAugmentSpec.parse(augment.rand_augment),
            flip_probability=augment.flip,
        ),
        erasing=RandomErasing(
            seed=config.seed, probability=augment.erase, mode=augment.erase_mode, area=augment.erase_area
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
