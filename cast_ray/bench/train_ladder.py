"""What each part of training adds to a bare torch loop: the parts one by one, taking turns in the same process.

Nothing of Ray runs beside it. Rungs, each with all that the ones before it have:

* bare: `BareLoop`
* deepspeed: the DeepSpeed strategy instead of plain torch
* inputs: frames as the decoders deliver them, uint8, made into inputs
* loop: our training loop, with its agreement, sums and watchdog
* logging: a row of the history after every update
* checkpoints: as loop, with one checkpoint, written in the background
"""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.fs as pafs
import torch
import torch.distributed as dist

from cast_ray.bench.train_bare import BareLoop, Prepared
from cast_ray.bench.train_case import Case, first_micro_batches, plan_of
from cast_ray.data.inputs import in_precision
from cast_ray.data.mixup import smooth_targets
from cast_ray.data.shards import open_complete
from cast_ray.training.agreement import together
from cast_ray.training.build import build_network
from cast_ray.training.history import RunLog
from cast_ray.training.losses import soft_cross_entropy
from cast_ray.training.saving import Saving
from cast_ray.training.stopping import Preemption
from cast_ray.training.watchdog import Watchdog

if TYPE_CHECKING:
    from cast_ray.training.worker import Worker

__all__ = ["RUNGS", "LadderJob", "climb"]

RUNGS = ("bare", "deepspeed", "inputs", "loop", "logging", "checkpoints")
WARM_UP = 2
"""Updates of every rung before the clock runs."""
NEVER = 1_000_000
"""Updates between two rows, or checkpoints, where there are to be none."""
HANG_S = 3600.0

Rung = Callable[[Iterator[int]], None]


@dataclass(frozen=True, kw_only=True)
class LadderJob:
    """One process's measurement of all rungs."""

    case: Case
    dataset: str
    rounds: int
    """Times that every rung has its turn."""


def climb(job: LadderJob) -> dict[str, Any]:
    """Seconds of every rung in every round, of this process as rank 0 and others that it starts.

    Returns:
        "rungs": by name, for each round the seconds per update by the clock and by this process's processor time;
        "first_loss": the bare loop's mean loss of the first epoch; "start_seconds": until that begins.
    """
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="cast_ray_ladder_") as folder:
        others = [context.Process(target=_measure, args=(job, rank, folder)) for rank in range(1, job.case.workers)]
        for process in others:
            process.start()
        result = _measure(job, 0, folder)
        for process in others:
            process.join()
    return result


def _measure(job: LadderJob, rank: int, folder: str) -> dict[str, Any]:
    begun, case = time.perf_counter(), job.case
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(case.workers)}
    device = torch.device("cuda", rank) if case.cuda else torch.device("cpu")
    if case.cuda:
        torch.cuda.set_device(device)
    else:
        os.environ["DS_ACCELERATOR"] = "cpu"
        torch.set_num_threads(case.threads)
    dist.init_process_group(
        "nccl" if case.cuda else "gloo",
        init_method=f"file://{folder}/rendezvous",
        rank=rank,
        world_size=case.workers,
    )
    with _worker(job, rank, folder) as worker:
        batches = first_micro_batches(worker.job.config, open_complete(job.dataset), rank)
        bare = _bare(worker, batches, device)
        rungs = _rungs(worker, batches, bare)
        result: dict[str, Any] = {"rungs": {name: [] for name in rungs}}
        result["start_seconds"] = time.perf_counter() - begun
        bare.run(iter(range(len(batches))))
        result["first_loss"] = bare.mean_loss()
        for rung in rungs.values():  # what is made at first use is made now
            rung(iter(range(WARM_UP * case.accumulation)))
        for _ in range(job.rounds):
            for name, rung in rungs.items():
                result["rungs"][name].append(_time(case, device, rung))
                worker.saving.wait()
    return result


def _time(case: Case, device: torch.device, rung: Rung) -> tuple[float, float]:
    """Seconds per update of one epoch, and processor seconds; the last update, which ends the epoch, does not count."""
    marks: list[tuple[float, float]] = []
    count = case.epoch_steps * case.accumulation
    timed = count - case.accumulation

    def places() -> Iterator[int]:
        for place in range(count):
            if place in (0, timed):
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                marks.append((time.perf_counter(), time.process_time()))
            yield place

    dist.barrier()
    rung(places())
    (started, processor), (ended, processor_end) = marks
    updates = case.epoch_steps - 1
    return (ended - started) / updates, (processor_end - processor) / updates


def _rungs(worker: Worker, batches: list[dict[str, np.ndarray]], bare: BareLoop) -> Mapping[str, Rung]:
    from cast_ray.training.loop import Epoch

    prepared = [_prepared(worker, batch) for batch in batches]
    rate = float(worker.learning_rates[0])

    def deepspeed(places: Iterator[int]) -> None:
        for place in places:
            _step(worker, prepared[place], rate)

    def inputs(places: Iterator[int]) -> None:
        for place in places:
            _step(worker, _prepared(worker, batches[place]), rate)

    def loop(log_every: int, checkpoint_every: int) -> Rung:
        config = dataclasses.replace(worker.job.config, log_every=log_every, checkpoint_every=checkpoint_every)
        changed = dataclasses.replace(worker, job=dataclasses.replace(worker.job, config=config))
        return lambda places: Epoch(changed, 0).train((batches[place] for place in places), 0)

    middle = worker.job.train_plan.order.steps_per_epoch // 2 + 1
    return {
        "bare": bare.run,
        "deepspeed": deepspeed,
        "inputs": inputs,
        "loop": loop(NEVER, NEVER),
        "logging": loop(1, NEVER),
        "checkpoints": loop(NEVER, middle),
    }


def _step(worker: Worker, batch: Prepared, rate: float) -> None:
    inputs, targets, valid = batch
    worker.strategy.step(soft_cross_entropy(worker.strategy.engine(inputs), targets, valid), rate)


def _prepared(worker: Worker, batch: dict[str, np.ndarray]) -> Prepared:
    """What the loop makes of a batch, without mixup, which the configuration switches off."""
    from cast_ray.training.validation import labels_and_valid

    labels, valid = labels_and_valid(worker, batch)
    inputs = in_precision(worker.inputs.training(batch, worker.augment, 0), worker.strategy.dtype)
    counts = worker.job.label_map.num_classes
    return inputs, {field: smooth_targets(labels[field], valid, counts[field], 0.0) for field in labels}, valid


def _bare(worker: Worker, batches: list[dict[str, np.ndarray]], device: torch.device) -> BareLoop:
    config, label_map = worker.job.config, worker.job.label_map
    network, _ = build_network(config.model, config.weights, label_map, seed=config.seed)
    return BareLoop(
        network,
        [_prepared(worker, batch) for batch in batches],
        accumulation=worker.job.train_plan.order.accumulation,
        optim=config.optim,
        rate=float(worker.learning_rates[0]),
        device=device,
        dtype=worker.strategy.dtype,
    )


@contextlib.contextmanager
def _worker(job: LadderJob, rank: int, folder: str) -> Iterator[Worker]:
    """A worker as `cast_ray.training.worker.set_up` makes it, but for what it tells Ray."""
    from cast_ray.data.inputs import InputMaker
    from cast_ray.models.named import spec_of
    from cast_ray.training.schedule import rates_of_run
    from cast_ray.training.worker import Worker, WorkerJob, make_strategy, train_augment

    config, dataset = job.case.config(folder, "ladder"), open_complete(job.dataset)
    plan = plan_of(config, dataset)
    board: Any = SimpleNamespace(post=SimpleNamespace(remote=lambda row: None))
    work = WorkerJob(
        config=config,
        label_map=dataset.label_map,
        dataset=dataset.fingerprint,
        train_plan=plan,
        validation_plan=plan,
        board=board,
    )
    network, frozen = build_network(config.model, config.weights, dataset.label_map, seed=config.seed)
    strategy = make_strategy(work, network)
    log = RunLog(rank, board, [])
    with contextlib.closing(Watchdog(limit_s=HANG_S, start_limit_s=HANG_S, say=log.say)) as watchdog:
        yield Worker(
            job=work,
            rank=rank,
            strategy=strategy,
            frozen=frozen,
            inputs=InputMaker(spec_of(config.model), strategy.device),
            augment=train_augment(config),
            learning_rates=rates_of_run(
                config.optim, global_batch=config.batch.global_batch, steps_per_epoch=plan.order.steps_per_epoch
            ),
            log=log,
            saving=_Unreported(rank, Path(folder) / "run", watchdog, strategy.device),
            watchdog=watchdog,
            preemption=_NoPreemption(),
            listener=None,
        )
        strategy.close()


class _Unreported(Saving):
    """Checkpoints of which Ray Train does not hear; they are deleted instead."""

    def __init__(self, rank: int, folder: Path, watchdog: Watchdog, device: torch.device) -> None:
        folder.mkdir(exist_ok=True)
        storage: Any = SimpleNamespace(storage_filesystem=pafs.LocalFileSystem(), experiment_fs_path=str(folder))
        super().__init__(
            rank=rank, storage=storage, retry_s=1.0, say=lambda text: None, beat=watchdog.beat, device=device
        )

    def report(self) -> None:
        self._pending = None
        folder = together(lambda: self._writer.result() if self._rank == 0 else None)
        if folder is not None:
            shutil.rmtree(folder)


class _NoPreemption(Preemption):
    """Ray is not there to be asked."""

    @property
    def due(self) -> bool:
        return False
