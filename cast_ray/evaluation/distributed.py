"""How clips become parts of predictions on a cluster: decoders, replicas of the model, and one writer.

Ray Data streams ranges of rows to decode workers, and their clips to a pool of replicas. A replica hands the
probabilities of a block to the writer, an actor on the driver's machine, and only the number of clips travels further:
the driver counts. The writer puts rows together into parts, in whatever order they come (`Assembler`), and writes each
part when it is complete. So no order of Ray Data is relied upon, and no clip that takes long holds up the others.

A replica goes on when the writer has its rows, and has written the parts that they complete.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import ray.data
from ray.actor import ActorHandle
from ray.data import ActorPoolStrategy
from rich.console import Console

from cast_ray.cluster import call_task, get, on_this_node
from cast_ray.data.pipeline import check_unreadable
from cast_ray.data.progress import ClipProgress
from cast_ray.errors import UserError
from cast_ray.evaluation.decoding import ReadClips
from cast_ray.evaluation.part_files import check_parts, open_folder, read_unreadable, remove_partial
from cast_ray.evaluation.part_tables import PartTable
from cast_ray.evaluation.parts import ROW, PartPlan
from cast_ray.evaluation.replica import Replica
from cast_ray.evaluation.trained import TrainedModel, check_weights
from cast_ray.evaluation.writer import Writer

__all__ = ["Outcome", "Work", "check_replicas", "predict_parts"]

TASKS = 4096
"""Decode tasks up to which a task is as small as the configuration asks for."""
WRITER_THREADS = 32
"""Replicas that the writer listens to at the same time."""
POLL_S = 0.5


@dataclass(frozen=True, kw_only=True)
class Work:
    """What is to be predicted, with what, and where to."""

    clips: pa.Table
    """One row per clip, in an order that is the same each time: what `loader` takes."""
    loader: Callable[[pa.Table], Mapping[str, Any]]
    """Rows to their media, see `ClipLoader`; keeps the column `ROW`."""
    model: TrainedModel
    table: PartTable
    """How a part is stored."""
    output: str
    """Folder: path or URI; a path is one on the driver's machine."""
    settings: Mapping[str, Any]
    """Everything that the predictions depend on, as plain values; another evaluation does not mix with this one."""
    clips_per_part: int
    max_unreadable: float = 1.0
    """Share of the clips that may be unreadable."""
    unreadable_flag: str = "--data.max-unreadable"
    """What the user changes it with."""
    split: str = ""
    """What messages call the clips."""
    replace: bool = False
    """Remove predictions of another evaluation that are in the folder."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What there is at the end."""

    clips: int
    """All, also from earlier runs of the command."""
    made: int
    """Those of this run."""
    unreadable: tuple[tuple[str, str], ...]
    """Clip id and reason of those that have no prediction."""
    seconds: float

    @property
    def rate(self) -> str:
        """What this run did, in words."""
        if not self.made:
            return f"{self.clips:,} clips, all there already"
        earlier = f" of {self.clips:,}, the others were there already" if self.made < self.clips else ""
        return f"{self.made:,} clips{earlier}, {self.made / self.seconds:.1f} clips/s"


def predict_parts(work: Work, console: Console) -> Outcome:
    """Predict the clips of all parts that are not there yet.

    Raises:
        UserError: the folder holds something else, too many clips cannot be read, or what replicas and storage raise.
    """
    started = time.monotonic()
    plan = PartPlan(clips=work.clips.num_rows, clips_per_part=work.clips_per_part)
    mark = {**work.settings, "clips": plan.clips, "clips_per_part": plan.clips_per_part}
    finished = plan.finished(open_folder(work.output, mark, replace=work.replace))
    missing = plan.missing_rows(finished)
    if finished:
        console.print(f"predict: continuing: {len(finished)} of {len(plan.names)} parts are there", highlight=False)
    if len(missing):
        _execute(work, plan, finished, missing, console)
        remove_partial(work.output)
    return Outcome(
        clips=plan.clips,
        made=len(missing),
        unreadable=tuple(read_unreadable(work.output)),
        seconds=time.monotonic() - started,
    )


def check_replicas(model: TrainedModel, *, may_grow: bool, console: Console) -> None:
    """Compare what the replicas need with what the cluster has.

    Raises:
        UserError: it does not fit and the cluster cannot grow, or the cluster does not find the frozen weights.
    """
    config = model.config
    call_task(check_weights, config)
    replicas, scale = config.predictors, config.scale
    needs = {"CPU": config.data.cpus_per_decode + (0 if scale.use_gpu else replicas * scale.cpus_per_worker)}
    if scale.use_gpu:
        needs["GPU"] = float(replicas)
    has = ray.cluster_resources()
    short = {name: amount for name, amount in needs.items() if has.get(name, 0) < amount}
    if not short:
        return
    text = ", ".join(f"{amount:g} {name} (it has {has.get(name, 0):g})" for name, amount in short.items())
    if not may_grow:
        raise UserError(
            f"{replicas} replicas of the model need {text} on this machine; lower --num-workers or --cpus-per-worker, "
            "or use CPU cores with --use-gpu False"
        )
    console.print(f"predict: waiting for the cluster to grow: {replicas} replicas need {text}")


def _execute(work: Work, plan: PartPlan, finished: list[int], missing: np.ndarray, console: Console) -> None:
    """Run the graph over the missing rows, and show how far it is."""
    there = plan.clips - len(missing)
    before = len(read_unreadable(work.output))
    clips = work.clips.append_column(ROW, pa.array(range(plan.clips), pa.int64())).take(missing).combine_chunks()
    writer = ray.remote(num_cpus=0, max_concurrency=WRITER_THREADS, scheduling_strategy=on_this_node())(Writer).remote(
        work.output, plan, finished, work.table
    )
    running = ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=on_this_node())(_stream).remote(
        [ray.put(clips)], len(missing), work.loader, work.model, work.table.views, writer
    )
    try:
        with ClipProgress(console, plan.clips, there=there, what="predict") as progress:
            ended: list[ray.ObjectRef] = []
            while not ended:
                ended, _ = ray.wait([running], timeout=POLL_S)
                done, unreadable = get(writer.progress.remote())
                progress.update(there + done)
                found = before + unreadable
                check_unreadable(found, plan.clips, work.max_unreadable, work.split, flag=work.unreadable_flag)
        get(running)
        check_parts(work.output, plan.names)
    finally:
        if ray.is_initialized():
            ray.cancel(running)
            ray.kill(writer)


def _stream(
    clips: list[ray.ObjectRef],  # in a list, so that they stay where they are
    count: int,
    loader: Callable[[pa.Table], Mapping[str, Any]],
    model: TrainedModel,
    views: bool,
    writer: ActorHandle,
) -> None:
    """The Ray Data graph: numbers of tasks -> media of their clips -> counts of predicted clips."""
    data, test, scale = model.config.data, model.config.test, model.config.scale
    per_task = max(data.clips_per_task, test.clips_per_batch, -(-count // TASKS))
    read = ReadClips(
        clips=clips[0], clips_per_task=per_task, clips_per_batch=test.clips_per_batch, loader=loader, writer=writer
    )
    tasks = -(-count // per_task)
    media = ray.data.range(tasks, override_num_blocks=tasks).map_batches(
        read,
        batch_size=None,
        num_cpus=data.cpus_per_decode,
        max_calls=data.tasks_per_decoder,
    )
    counts = media.map_batches(
        _Predictor,
        fn_constructor_args=(model, views, writer),
        batch_size=test.clips_per_batch,
        compute=ActorPoolStrategy(size=model.config.predictors),
        num_gpus=1 if scale.use_gpu else 0,
        num_cpus=0 if scale.use_gpu else scale.cpus_per_worker,
    )
    for _ in counts.iter_batches(batch_size=None, batch_format="numpy"):
        pass


class _Predictor:
    """The actor with one replica of the model."""

    def __init__(self, model: TrainedModel, views: bool, writer: ActorHandle) -> None:
        self._replica, self._writer = Replica(model, views=views), writer

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        get(self._writer.add.remote(self._replica(batch)))
        return {"clips": np.array([len(batch["clip_id"])])}
