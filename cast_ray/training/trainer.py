"""How a run is started on the cluster: the TorchTrainer with its data, storage and failure settings."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray.train
from ray.actor import ActorHandle
from ray.data import Dataset, ExecutionOptions
from ray.train import ControllerError
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError
from rich.console import Console

from cast_ray.config import RunConfig
from cast_ray.data.loader import ClipLoader, wanted_by
from cast_ray.data.manifest import TRAIN, VALIDATION
from cast_ray.data.order import EpochPlan, Position
from cast_ray.data.pipeline import ORDER_COLUMNS, PassPlan, pass_dataset
from cast_ray.data.shards import ShardedDataset
from cast_ray.data.views import CentreView, TrainView, frame_sampling
from cast_ray.errors import UserError
from cast_ray.models.named import spec_of
from cast_ray.training.checkpoint import fetch_state
from cast_ray.training.loop import SCORE, TRAIN_SHARD, VALIDATION_SHARD, WorkerJob, train_worker
from cast_ray.training.progress import make_board, shown

__all__ = ["TrainedRun", "train"]


@dataclass(frozen=True, kw_only=True)
class TrainedRun:
    """What a finished training run leaves behind."""

    folder: str
    """Path or URI of the run."""
    best: ray.train.Checkpoint
    """The best checkpoint by validation."""
    last: ray.train.Checkpoint


def train(config: RunConfig, dataset: ShardedDataset, console: Console) -> TrainedRun:
    """Train until the last epoch, from the run's latest checkpoint if there is one.

    Args:
        config: with a name.
        dataset: the prepared data.
        console: where progress goes.

    Raises:
        UserError: the data, the storage or the cluster does not fit the configuration.
    """
    folder = f"{config.storage}/{config.name}"
    start = latest_position(folder)
    if start != Position():
        console.print(f"train: run '{config.name}' continues after epoch {start.epoch} of {config.optim.epochs}")
    board = make_board()
    job = WorkerJob(
        config=config,
        label_map=dataset.label_map,
        dataset=dataset.fingerprint,
        train_plan=_plan(config, dataset, TRAIN),
        validation_plan=_plan(config, dataset, VALIDATION),
        board=board,
    )
    tensorboard = None if "://" in folder else Path(folder) / "tensorboard"
    with shown(board, console, tensorboard):
        result = _fit(_trainer(config, dataset, job, folder), config)
    outcome: dict[str, Any] = result.return_value or {}
    if "user_error" in outcome:
        raise UserError(outcome["user_error"])
    best, _ = max(result.best_checkpoints, key=lambda saved: saved[1][SCORE])
    return TrainedRun(folder=folder, best=best, last=result.checkpoint)


def _fit(trainer: TorchTrainer, config: RunConfig) -> ray.train.Result:
    try:
        return trainer.fit()
    except ControllerError as error:
        if not isinstance(error.controller_failure, WorkerGroupStartupTimeoutError):
            raise
        raise UserError(
            f"the cluster did not provide {config.scale.num_workers} workers within {config.scale.start_timeout_s} s; "
            "see `ray status`, then lower --scale.num-workers or --scale.cpus-per-worker, or raise "
            "--scale.start-timeout-s if nodes need longer to start"
        ) from None


class _ShowFailures(ray.train.UserCallback):
    """Tells the user why workers are replaced; runs in Train's controller."""

    def __init__(self, board: ActorHandle) -> None:
        self._board = board

    def after_exception(
        self, run_context: ray.train.TrainRunContext, worker_exceptions: dict[int, Exception], **kwargs: Any
    ) -> None:
        rank, error = min(worker_exceptions.items())
        lines = str(error).strip().splitlines() or [type(error).__name__]
        self._board.post.remote({"kind": "failure", "rank": rank, "reason": lines[-1]})


def latest_position(folder: str) -> Position:
    """Where a run's latest checkpoint stands; the beginning if there is none."""
    try:
        checkpoint = ray.train.Result.from_path(folder).checkpoint
    except RuntimeError:  # Ray's way of saying that there is no run yet
        return Position()
    return Position() if checkpoint is None else fetch_state(checkpoint).position


def _plan(config: RunConfig, dataset: ShardedDataset, split: str) -> PassPlan:
    scale, training = config.scale, split == TRAIN
    order = EpochPlan(
        num_clips=dataset.split(split).num_rows,
        seed=config.seed,
        micro_batch=config.batch.micro_batch,
        accumulation=config.batch.accumulation(scale.num_workers) if training else 1,
        world_size=scale.num_workers,
        shuffle=training,
    )
    return PassPlan(
        order=order, epochs=config.optim.epochs if training else None, clips_per_task=config.data.clips_per_task
    )


def _trainer(config: RunConfig, dataset: ShardedDataset, job: WorkerJob, folder: str) -> TorchTrainer:
    scale = config.scale
    # The environment of the driver reaches the controller, which waits for the workers.
    os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = str(scale.start_timeout_s)
    resources = {"CPU": scale.cpus_per_worker, **({"GPU": 1.0} if scale.use_gpu else {})}
    return TorchTrainer(
        train_worker,
        train_loop_config={"job": job},
        torch_config=TorchConfig(backend="nccl" if scale.use_gpu else "gloo"),
        scaling_config=ray.train.ScalingConfig(
            num_workers=scale.num_workers, use_gpu=scale.use_gpu, resources_per_worker=resources
        ),
        datasets=_datasets(config, dataset, job, folder),
        dataset_config=ray.train.DataConfig(
            execution_options=ExecutionOptions(preserve_order=True), enable_shard_locality=False
        ),
        run_config=ray.train.RunConfig(
            name=config.name,
            storage_path=config.storage,
            checkpoint_config=ray.train.CheckpointConfig(
                num_to_keep=config.keep_checkpoints, checkpoint_score_attribute=SCORE, checkpoint_score_order="max"
            ),
            callbacks=[_ShowFailures(job.board)],
            failure_config=ray.train.FailureConfig(max_failures=scale.max_failures, controller_failure_limit=0),
        ),
    )


def _datasets(
    config: RunConfig, dataset: ShardedDataset, job: WorkerJob, folder: str
) -> dict[str, Callable[[], Dataset]]:
    """Factories and not datasets: Train calls them whenever workers (re)start, and the order goes on from there."""
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
    )
    wanted = wanted_by(spec_of(config.model))
    loaders = {
        split: ClipLoader(root=dataset.uri, view=view, columns=ORDER_COLUMNS, wanted=wanted)
        for split, view in views.items()
    }
    return {
        TRAIN_SHARD: functools.partial(
            make,
            TRAIN,
            plan=job.train_plan,
            loader=loaders[TRAIN],
            start=functools.partial(latest_position, folder),
        ),
        VALIDATION_SHARD: functools.partial(make, VALIDATION, plan=job.validation_plan, loader=loaders[VALIDATION]),
    }
