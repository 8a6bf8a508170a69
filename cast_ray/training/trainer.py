"""How a run is started on the cluster: the TorchTrainer with its data, storage and failure settings."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import ray.train
from ray.actor import ActorHandle
from ray.data import DataIterator, Dataset, ExecutionOptions
from ray.train import ControllerError, WorkerGroupError
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.exceptions import (
    WorkerGroupStartupFailedError,
    WorkerGroupStartupTimeoutError,
    WorkerHealthCheckFailedError,
)
from rich.console import Console

from cast_ray.cluster import raise_user_error
from cast_ray.config import RunConfig
from cast_ray.data.loader import clip_loader
from cast_ray.data.manifest import TRAIN, VALIDATION
from cast_ray.data.order import EpochPlan, Position
from cast_ray.data.pipeline import ORDER_COLUMNS, PassPlan, pass_dataset
from cast_ray.data.shards import ShardedDataset
from cast_ray.data.views import CentreView, TrainView, frame_sampling
from cast_ray.errors import Stopped, UserError
from cast_ray.settings.scale import ScaleConfig
from cast_ray.training.backend import WorkersTorchConfig
from cast_ray.training.folder import data_position, latest_position, mend_list
from cast_ray.training.loop import TRAIN_SHARD, train_worker
from cast_ray.training.progress import make_board, shown
from cast_ray.training.refit import fit_again
from cast_ray.training.saving import SCORE
from cast_ray.training.stopping import heeding_signals
from cast_ray.training.validation import VALIDATION_SHARD
from cast_ray.training.worker import START_FACTOR, WorkerJob
from cast_ray.watching.rows import Watcher
from cast_ray.watching.startup import Startup
from cast_ray.watching.watchers import watchers

__all__ = ["TrainedRun", "train"]

ATTEMPT_S = 30
"""Longest wait for the places of a number of workers that Ray itself has chosen: what it knows of the machines may be
20 seconds old, and places on one that has gone since never come. Then it chooses again."""


@dataclass(frozen=True, kw_only=True)
class TrainedRun:
    """What a finished training run leaves behind."""

    folder: str
    """Path or URI of the run."""
    best: ray.train.Checkpoint
    """The best checkpoint by validation."""
    last: ray.train.Checkpoint


def train(
    config: RunConfig,
    dataset: ShardedDataset,
    console: Console,
    startup: Startup,
    others: Sequence[Watcher] = (),
) -> TrainedRun:
    """Train until the last epoch, from the run's latest checkpoint if there is one.

    Args:
        config: with a name.
        dataset: the prepared data.
        console: where progress goes.
        startup: what has been passed until now.
        others: who watches the run beside those that the configuration names.

    Raises:
        UserError: the data, the storage or the cluster does not fit the configuration.
        Stopped: a signal asked for the end, and a checkpoint is written.
    """
    folder = config.folder
    if mend_list(folder):
        console.print(f"train: the list of checkpoints in {folder} was damaged and is made anew from what is there")
    start = latest_position(folder)
    if start != Position():
        within = f" and {start.step} steps" if start.step else ""
        console.print(
            f"train: run '{config.name}' continues after epoch {start.epoch}{within} of {config.optim.epochs}"
        )
    board = make_board(str(config.name))
    job = WorkerJob(
        config=config,
        label_map=dataset.label_map,
        dataset=dataset.fingerprint,
        train_plan=_plan(config, dataset, TRAIN),
        validation_plan=_plan(config, dataset, VALIDATION),
        board=board,
    )
    steps = job.train_plan.order.steps_per_epoch * config.optim.epochs
    with shown(board, [*watchers(config, console, folder=folder, steps=steps, startup=startup), *others]):

        def fit() -> ray.train.Result:
            return fit_again(
                lambda: _fit(_trainer(config, dataset, job, folder), config),
                folder,
                times=config.scale.max_failures,
                retry_s=config.checkpoint_retry_s,
                say=lambda text: console.print(f"train: {text}", highlight=False, markup=False, soft_wrap=True),
            )

        def stop(signal: str) -> None:
            console.print(f"train: {signal}; stopping with a checkpoint after this step, a second signal ends at once")
            board.stop.remote(signal)

        result, received = heeding_signals(fit, stop)
    outcome: dict[str, Any] = result.return_value or {}
    if "user_error" in outcome:
        raise UserError(outcome["user_error"])
    if received is not None:
        where = f"after step {outcome['step']}" if "step" in outcome else "when training was complete"
        raise Stopped(
            f"run '{config.name}' was stopped by {received} {where}; a checkpoint is written. Start the same command "
            f"with --name {config.name} to go on",
            received,
        )
    best, _ = max(result.best_checkpoints, key=lambda saved: saved[1][SCORE])
    return TrainedRun(folder=folder, best=best, last=result.checkpoint)


def _fit(trainer: TorchTrainer, config: RunConfig) -> ray.train.Result:
    try:
        return trainer.fit()
    except WorkerGroupError as error:
        for failure in error.worker_failures.values():
            raise_user_error(failure)
        for rank, failure in error.worker_failures.items():
            if isinstance(failure, WorkerHealthCheckFailedError):  # its process has ended, perhaps with its machine
                raise UserError(
                    f"workers were lost more often than --scale.max-failures {config.scale.max_failures} allows; the "
                    f"last one was worker {rank}: {_last_line(failure)}. Start the same command with --name "
                    f"{config.name} to go on from the latest checkpoint, with more of them if machines come and go"
                ) from None
        raise
    except ControllerError as error:
        if isinstance(error.controller_failure, WorkerGroupStartupFailedError):
            raise UserError(
                f"a worker was lost while the workers were starting: {_last_line(error.controller_failure)}. Start the "
                f"same command with --name {config.name} to go on"
            ) from None
        if not isinstance(error.controller_failure, WorkerGroupStartupTimeoutError):
            raise
        raise UserError(
            f"the cluster did not provide {config.scale.min_workers or config.scale.num_workers} workers within "
            f"{config.scale.start_timeout_s} s; "
            "see `ray status`, then lower --scale.num-workers or --scale.cpus-per-worker, or raise "
            "--scale.start-timeout-s if nodes need longer to start"
        ) from None


def _last_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1]


class _ShowFailures(ray.train.UserCallback):
    """Tells the user why workers are replaced; runs in Train's controller."""

    def __init__(self, board: ActorHandle) -> None:
        self._board = board

    def after_exception(
        self, run_context: ray.train.TrainRunContext, worker_exceptions: dict[int, Exception], **kwargs: Any
    ) -> None:
        rank, error = min(worker_exceptions.items())
        self._board.post.remote({"kind": "failure", "rank": rank, "reason": _last_line(error)})


@dataclass(frozen=True, kw_only=True)
class _Passes:
    """The dataset of one split, for as many workers as there will be."""

    plan: PassPlan
    make: Callable[..., Dataset]

    def dataset(self, world_size: int) -> Dataset:
        return self.make(plan=self.plan.for_workers(world_size))


class _DividedData(ray.train.DataConfig):
    """Makes the datasets when workers (re)start: then it is known how many there are, and where the order goes on."""

    def configure(
        self, datasets: dict[str, _Passes], world_size: int, *arguments: Any, **options: Any
    ) -> list[dict[str, DataIterator]]:
        made = {name: passes.dataset(world_size) for name, passes in datasets.items()}
        return super().configure(made, world_size, *arguments, **options)


def _next_data(folder: str, steps_per_epoch: int) -> Position:
    """The first step that a run's latest checkpoint wants data for."""
    return data_position(latest_position(folder), steps_per_epoch)


def _plan(config: RunConfig, dataset: ShardedDataset, split: str) -> PassPlan:
    scale, training = config.scale, split == TRAIN
    order = EpochPlan(
        num_clips=dataset.split(split).num_rows,
        seed=config.seed,
        micro_batch=config.batch.micro_batch,
        micro_batches_per_step=config.batch.micro_batches_per_step if training else scale.num_workers,
        world_size=scale.num_workers,
        shuffle=training,
        repeats=config.augment.repeats if training else 1,
    )
    return PassPlan(
        order=order, epochs=config.optim.epochs if training else None, clips_per_task=config.data.clips_per_task
    )


def _trainer(config: RunConfig, dataset: ShardedDataset, job: WorkerJob, folder: str) -> TorchTrainer:
    scale = config.scale
    # The environment of the driver reaches the controller, which waits for the workers.
    attempt_s, attempts = _start_attempts(scale)
    os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = str(attempt_s)
    return TorchTrainer(
        train_worker,
        train_loop_config={"job": job},
        # The watchdogs end what hangs; this is for when one of them does not.
        torch_config=WorkersTorchConfig(
            backend="nccl" if scale.use_gpu else "gloo", timeout_s=math.ceil(START_FACTOR * scale.hang_timeout_s)
        ),
        scaling_config=ray.train.ScalingConfig(
            num_workers=scale.num_workers if scale.min_workers is None else (scale.min_workers, scale.num_workers),
            elastic_resize_monitor_interval_s=scale.resize_every_s,
            use_gpu=scale.use_gpu,
            resources_per_worker=scale.resources_per_worker,
        ),
        datasets=_datasets(config, dataset, job, folder),
        dataset_config=_DividedData(
            execution_options=ExecutionOptions(preserve_order=True), enable_shard_locality=False
        ),
        run_config=ray.train.RunConfig(
            name=config.name,
            storage_path=config.storage,
            checkpoint_config=ray.train.CheckpointConfig(
                num_to_keep=config.keep_checkpoints, checkpoint_score_attribute=SCORE, checkpoint_score_order="max"
            ),
            callbacks=[_ShowFailures(job.board)],
            failure_config=ray.train.FailureConfig(
                max_failures=scale.max_failures, controller_failure_limit=attempts - 1
            ),
        ),
    )


def _start_attempts(scale: ScaleConfig) -> tuple[int, int]:
    """Seconds that each attempt to start the workers may wait for their places, and how many attempts there may be."""
    if scale.min_workers is None:
        return scale.start_timeout_s, 1
    attempt_s = min(ATTEMPT_S, scale.start_timeout_s)
    # All attempts of a run count together, and every lost machine may cost one.
    return attempt_s, math.ceil(scale.start_timeout_s / attempt_s) + scale.max_failures


def _datasets(config: RunConfig, dataset: ShardedDataset, job: WorkerJob, folder: str) -> dict[str, _Passes]:
    views: dict[str, TrainView | CentreView] = {
        TRAIN: TrainView(
            sampling=frame_sampling(config),
            seed=config.seed,
            crop_area=config.augment.crop_area,
            crop_ratio=config.augment.crop_ratio,
        ),
        VALIDATION: CentreView(sampling=frame_sampling(config)),
    }
    make = functools.partial(
        pass_dataset,
        dataset,
        cpus_per_decode=config.data.cpus_per_decode,
        tasks_per_decoder=config.data.tasks_per_decoder,
    )
    loaders = {split: clip_loader(dataset, config, view, ORDER_COLUMNS) for split, view in views.items()}
    start = functools.partial(_next_data, folder, job.train_plan.order.steps_per_epoch)
    return {
        TRAIN_SHARD: _Passes(
            plan=job.train_plan, make=functools.partial(make, TRAIN, loader=loaders[TRAIN], start=start)
        ),
        VALIDATION_SHARD: _Passes(
            plan=job.validation_plan, make=functools.partial(make, VALIDATION, loader=loaders[VALIDATION])
        ),
    }
