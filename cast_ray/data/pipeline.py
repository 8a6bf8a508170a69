"""How clips reach the training workers: the Ray Data graph from an order to batches of uint8 frames.

One execution of the dataset is one pass: as many epochs as make a reasonable number of tasks, because starting an
execution costs seconds and small datasets have short epochs. `PassSource` turns the pure order of
`cast_ray.data.order` into read tasks, each of which is a run of consecutive micro batches of one rank; `ClipLoader`
fetches, decodes, samples and crops them.

The tasks of all ranks have equal size and come round robin, so `streaming_split(equal=True)` with `preserve_order`
hands every rank exactly its own rows. That is how Ray splits today and not a promise of its documentation, therefore
every row carries its place in the order and `expect_rows` stops the run if a row is not the expected one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import ray.data
from ray.data import DataContext, Dataset
from ray.data.block import BlockMetadata
from ray.data.datasource import Datasource, ReadTask

from cast_ray.data.loader import ROW_COLUMNS
from cast_ray.data.order import PADDING, EpochPlan, MicroBatch, Position
from cast_ray.data.shards import ShardedDataset
from cast_ray.errors import UserError

if TYPE_CHECKING:
    from cast_ray.data.loader import ClipLoader

__all__ = [
    "ORDER_COLUMNS",
    "PassPlan",
    "broken_sounds",
    "check_unreadable",
    "expect_rows",
    "iterate_once",
    "iterate_run",
    "pass_dataset",
    "unreadable_clips",
]

TASKS_PER_PASS = 4096
"""Read tasks up to which epochs are put together: Ray makes all tasks of an execution before it starts."""
PREFETCH = 2
"""Micro batches that a worker fetches ahead of the one it works on."""

ORDER_COLUMNS = ("epoch", "step", "accumulation", "clip", "view")
"""Columns that give a row's place in the order; `clip` is the index in the split, PADDING where there is none, and
`view` which of its repetitions within the epoch."""


@dataclass(frozen=True, kw_only=True)
class PassPlan:
    """Which epochs of an order one execution of the dataset covers, and how they are cut into tasks."""

    order: EpochPlan
    epochs: int | None
    """Epochs of the whole run; None: every execution is the same single epoch, as for validation."""
    clips_per_task: int

    def for_workers(self, world_size: int) -> PassPlan:
        """The same micro batches and steps, divided among another number of workers."""
        return dataclasses.replace(self, order=dataclasses.replace(self.order, world_size=world_size))

    @property
    def batches_per_task(self) -> int:
        """Micro batches of one rank that one task decodes."""
        return max(1, self.clips_per_task // self.order.micro_batch)

    @property
    def epochs_per_pass(self) -> int:
        """Epochs that one execution covers."""
        if self.epochs is None:
            return 1
        order = self.order
        rows = order.steps_per_epoch * order.accumulation * order.world_size * order.micro_batch  # with padding
        tasks_per_epoch = -(-rows // (self.batches_per_task * self.order.micro_batch))
        return max(1, min(self.epochs, TASKS_PER_PASS // tasks_per_epoch))

    def micro_batches(self, start: Position, executions: int) -> Iterator[tuple[int, MicroBatch]]:
        """Epoch and micro batch, in streaming order, of the pass after `executions` others in a run from `start`."""
        if self.epochs is None:
            first, end = 0, 1
        else:
            first = start.epoch + executions * self.epochs_per_pass
            end = min(first + self.epochs_per_pass, self.epochs)
        for epoch in range(first, end):
            for batch in self.order.micro_batches(epoch, start.step if epoch == start.epoch else 0):
                yield epoch, batch


class PassSource(Datasource):
    """The order as read tasks; which pass is told by the number of executions before it."""

    def __init__(self, index: pa.Table, plan: PassPlan, start: Callable[[], Position]) -> None:
        super().__init__()
        self._index = index
        self._plan = plan
        self._start = start()

    def get_name(self) -> str:
        return "ClipOrder"

    def estimate_inmemory_data_size(self) -> int | None:
        return None

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: DataContext | None = None
    ) -> list[ReadTask]:
        # The counter of executions is private to Ray, but it is the only thing that tells one pass over a split
        # dataset from the next. Without a context Ray only asks how many tasks there will be.
        executions = 0 if data_context is None else data_context._execution_idx
        return [_read_task(rows) for rows in self._task_rows(executions)]

    def _task_rows(self, executions: int) -> Iterator[pa.Table]:
        """The rows of each task: for run after run of micro batches, the run of every rank."""
        tasks = list(self._tasks(executions))
        batches = [batch for task in tasks for batch in task]
        if not batches:
            return
        clips = np.concatenate([place.clips for _, place in batches])
        sizes = [len(place.clips) for _, place in batches]
        # Taken at once: for hundreds of thousands of clips, a take per task would cost seconds. A padding row repeats
        # some clip's index row; `clip` = -1 keeps it from ever being read.
        rows = self._index.take(np.maximum(clips, 0)).combine_chunks().append_column("clip", pa.array(clips))
        order = {
            "view": np.concatenate([place.views for _, place in batches]),
            "epoch": np.repeat([epoch for epoch, _ in batches], sizes),
            "step": np.repeat([place.step for _, place in batches], sizes),
            "accumulation": np.repeat([place.accumulation for _, place in batches], sizes),
        }
        for name, values in order.items():
            rows = rows.append_column(name, pa.array(values, pa.int64()))
        first = 0
        for task in tasks:
            length = sum(len(place.clips) for _, place in task)
            yield rows.slice(first, length)
            first += length

    def _tasks(self, executions: int) -> Iterator[list[tuple[int, MicroBatch]]]:
        """Epoch and micro batch of what each task makes, in streaming order."""
        pending: dict[int, list[tuple[int, MicroBatch]]] = {rank: [] for rank in range(self._plan.order.world_size)}
        for epoch, place in self._plan.micro_batches(self._start, executions):
            pending[place.rank].append((epoch, place))
            if all(len(task) == self._plan.batches_per_task for task in pending.values()):
                yield from pending.values()
                pending = {rank: [] for rank in pending}
        yield from (task for task in pending.values() if task)


def _read_task(rows: pa.Table) -> ReadTask:
    # As bytes: pickled, a slice would take the rows of all tasks with it.
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as stream:
        stream.write_table(rows)
    data = sink.getvalue().to_pybytes()
    metadata = BlockMetadata(num_rows=rows.num_rows, size_bytes=rows.nbytes, input_files=None, exec_stats=None)
    return ReadTask(lambda: [pa.ipc.open_stream(data).read_all()], metadata)


def pass_dataset(
    dataset: ShardedDataset,
    split: str,
    *,
    plan: PassPlan,
    loader: ClipLoader,
    cpus_per_decode: float = 1.0,
    tasks_per_decoder: int | None = None,
    start: Callable[[], Position] = Position,
) -> Dataset:
    """The Ray dataset whose executions are the passes of `plan`, beginning at `start()`.

    A decode worker ends after `tasks_per_decoder` tasks, and with it what the decoders' libraries have lost.

    Rows: `epoch`, `step`, `accumulation`, `clip` (index in the split, PADDING where there is none), `view`, `clip_id`,
    `labels` [F], `frames` uint8 (as the loader says), `valid`, `reason`.
    """
    source = PassSource(dataset.split(split).select(ROW_COLUMNS), plan, start)
    # override_num_blocks=1 only says "do not split the output of a read task": Ray splits blocks further when a
    # source has fewer tasks than blocks were asked for, and a split block would go to the wrong rank.
    rows = ray.data.read_datasource(source, override_num_blocks=1)
    clips = rows.map_batches(
        loader, batch_size=None, batch_format="pyarrow", num_cpus=cpus_per_decode, max_calls=tasks_per_decoder
    )
    clips.context.target_max_block_size = None  # one task, one block: see the module's docstring
    clips.context.enable_progress_bars = False
    return clips


def iterate_run(
    shard: ray.data.DataIterator, *, plan: PassPlan, rank: int, start: Position
) -> Iterator[dict[str, np.ndarray]]:
    """The micro batches of one rank from `start` to the end of the run, each checked against the plan.

    Raises:
        RuntimeError: Ray delivered other rows than the plan says, or fewer.
    """
    if plan.epochs is None:
        raise ValueError("this plan repeats one epoch; use iterate_once")
    epochs_left = plan.epochs - start.epoch
    for executions in range(-(-epochs_left // plan.epochs_per_pass)):
        yield from _iterate_pass(shard, plan.micro_batches(start, executions), plan.order.micro_batch, rank)


def iterate_once(shard: ray.data.DataIterator, *, plan: PassPlan, rank: int) -> Iterator[dict[str, np.ndarray]]:
    """The micro batches of one rank in one execution of a plan without `epochs`."""
    return _iterate_pass(shard, plan.micro_batches(Position(), 0), plan.order.micro_batch, rank)


def _iterate_pass(
    shard: ray.data.DataIterator,
    micro_batches: Iterator[tuple[int, MicroBatch]],
    size: int,
    rank: int,
) -> Iterator[dict[str, np.ndarray]]:
    expected = (place for place in micro_batches if place[1].rank == rank)
    for batch in shard.iter_batches(batch_size=size, batch_format="numpy", prefetch_batches=PREFETCH):
        expect_rows(batch, next(expected, None))
        yield batch
    missing = next(expected, None)
    if missing is not None:
        raise RuntimeError(f"the data ended early for rank {rank}: {missing} did not come")


def expect_rows(batch: dict[str, np.ndarray], expected: tuple[int, MicroBatch] | None) -> None:
    """Raise `RuntimeError` unless `batch` is the micro batch `expected` = (epoch, micro batch)."""
    if expected is None:
        raise RuntimeError("Ray Data delivered more rows than the plan has")
    epoch, place = expected
    same = (
        np.array_equal(batch["clip"], place.clips)
        and np.array_equal(batch["view"], place.views)
        and (batch["epoch"] == epoch).all()
        and (batch["step"] == place.step).all()
        and (batch["accumulation"] == place.accumulation).all()
    )
    if not same:
        raise RuntimeError(
            f"expected epoch {epoch}, {place}, but Ray Data delivered epochs {batch['epoch'].tolist()}, steps "
            f"{batch['step'].tolist()}, clips {batch['clip'].tolist()}; this Ray version splits blocks in another way"
        )


def unreadable_clips(batch: dict[str, np.ndarray]) -> dict[str, str]:
    """Reason by clip id of the clips in `batch` that could not be read; padding is not among them."""
    broken = ~batch["valid"].astype(bool) & (batch["clip"] != PADDING)
    return dict(zip(batch["clip_id"][broken].tolist(), batch["reason"][broken].tolist(), strict=True))


def broken_sounds(batch: dict[str, np.ndarray]) -> dict[str, str]:
    """Reason by clip id of the clips in `batch` that are used without the sound that they should have."""
    broken = batch["valid"].astype(bool) & (batch["reason"] != "")
    return dict(zip(batch["clip_id"][broken].tolist(), batch["reason"][broken].tolist(), strict=True))


def check_unreadable(
    unreadable: int, clips: int, allowed: float, split: str, *, flag: str = "--data.max-unreadable"
) -> None:
    """Raise `UserError` when more than the share `allowed`, which `flag` sets, of a split's clips could not be read."""
    if unreadable / clips > allowed:  # as a product, 29 of 100 would be more than 0.29
        raise UserError(
            f"{unreadable} of {clips} clips in the {split} split are unreadable, more than {flag.lstrip('-')} "
            f"{allowed:.2%}; each is listed with its reason. Remove them from the annotations, or repair them and "
            f"delete the prepared shards, or raise {flag}"
        )
