"""How clips reach the training workers: the Ray Data graph from an order to batches of uint8 frames.

One execution of the dataset is one epoch. `EpochSource` turns the pure order of `cast_ray.data.order` into read tasks,
each of which is a run of consecutive micro batches of one rank; `ClipLoader` fetches, decodes, samples and crops them.
The tasks of all ranks have equal size and come round robin, so `streaming_split(equal=True)` with `preserve_order`
hands every rank exactly its own rows. That is how Ray splits today and not a promise of its documentation, therefore
every row carries its place in the order and `expect_rows` stops the run if a row is not the expected one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import ray.data
from ray.data import DataContext, Dataset
from ray.data.block import BlockMetadata
from ray.data.datasource import Datasource, ReadTask

from cast_ray.data.order import PADDING, EpochPlan, MicroBatch, Position
from cast_ray.data.shards import ShardedDataset
from cast_ray.errors import UserError

if TYPE_CHECKING:
    from cast_ray.data.loader import ClipLoader

__all__ = ["ORDER_COLUMNS", "check_unreadable", "epoch_dataset", "expect_rows", "iterate_split", "unreadable_clips"]

ORDER_COLUMNS = ("epoch", "step", "accumulation", "clip")
"""Columns that give a row's place in the order; `clip` is the index in the split, PADDING where there is none."""


class EpochSource(Datasource):
    """The order of an epoch as read tasks; the epoch is the number of earlier executions plus the start's."""

    def __init__(self, index: pa.Table, plan: EpochPlan, start: Callable[[], Position], batches_per_task: int) -> None:
        super().__init__()
        self._index = index
        self._plan = plan
        self._start = start()
        self._batches_per_task = batches_per_task

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
        epoch = self._start.epoch + executions
        first_step = self._start.step if executions == 0 else 0
        return [_read_task(rows) for rows in self._task_rows(epoch, first_step)]

    def _task_rows(self, epoch: int, first_step: int) -> Iterator[pa.Table]:
        """The rows of each task: for run after run of micro batches, the run of every rank."""
        pending: dict[int, list[dict[str, Any]]] = {rank: [] for rank in range(self._plan.world_size)}
        for step, accumulation, rank, clips in self._plan.micro_batches(epoch, first_step):
            pending[rank].append({"epoch": epoch, "step": step, "accumulation": accumulation, "clips": clips})
            if all(len(batches) == self._batches_per_task for batches in pending.values()):
                yield from self._flush(pending)
        yield from self._flush(pending)

    def _flush(self, pending: dict[int, list[dict[str, Any]]]) -> Iterator[pa.Table]:
        for batches in pending.values():
            if batches:
                yield self._rows(batches)
                batches.clear()

    def _rows(self, batches: list[dict[str, Any]]) -> pa.Table:
        clips = np.concatenate([batch["clips"] for batch in batches])
        # A padding row repeats some clip's index row; `clip` = -1 keeps it from ever being read.
        rows = self._index.take(np.maximum(clips, 0)).append_column("clip", pa.array(clips))
        for key in ("epoch", "step", "accumulation"):
            values = np.repeat([batch[key] for batch in batches], [len(batch["clips"]) for batch in batches])
            rows = rows.append_column(key, pa.array(values, pa.int64()))
        return rows.combine_chunks()


def _read_task(rows: pa.Table) -> ReadTask:
    metadata = BlockMetadata(num_rows=rows.num_rows, size_bytes=rows.nbytes, input_files=None, exec_stats=None)
    return ReadTask(lambda: [rows], metadata)


def epoch_dataset(
    dataset: ShardedDataset,
    split: str,
    *,
    plan: EpochPlan,
    loader: ClipLoader,
    clips_per_task: int,
    cpus_per_decode: float,
    start: Callable[[], Position] = Position,
) -> Dataset:
    """The Ray dataset whose every execution is one epoch of `plan`, beginning at `start()` the first time.

    Rows: `epoch`, `step`, `accumulation`, `clip` (index in the split, -1 for padding), `clip_id`, `labels` [F],
    `frames` uint8 (as the loader says), `valid`, `reason`.
    """
    batches_per_task = max(1, clips_per_task // plan.micro_batch)
    source = EpochSource(dataset.split(split), plan, start, batches_per_task)
    # override_num_blocks=1 only says "do not split the output of a read task": Ray splits blocks further when a
    # source has fewer tasks than blocks were asked for, and a split block would go to the wrong rank.
    rows = ray.data.read_datasource(source, override_num_blocks=1)
    clips = rows.map_batches(loader, batch_size=None, batch_format="pyarrow", num_cpus=cpus_per_decode)
    clips.context.target_max_block_size = None  # one task, one block: see the module's docstring
    clips.context.enable_progress_bars = False
    return clips


def iterate_split(
    shard: ray.data.DataIterator,
    *,
    plan: EpochPlan,
    epoch: int | None,
    rank: int,
    first_step: int = 0,
    prefetch: int = 2,
) -> Iterator[dict[str, np.ndarray]]:
    """One epoch's micro batches of one rank, checked against the plan.

    `epoch` None is for a split that is not shuffled: every pass over it is the same.

    Raises:
        RuntimeError: Ray delivered other rows than the plan says, or fewer.
    """
    expected = (batch for batch in plan.micro_batches(epoch or 0, first_step) if batch.rank == rank)
    batches = shard.iter_batches(batch_size=plan.micro_batch, batch_format="numpy", prefetch_batches=prefetch)
    for batch in batches:
        expect_rows(batch, next(expected, None), epoch)
        yield batch
    missing = next(expected, None)
    if missing is not None:
        raise RuntimeError(f"epoch {epoch} ended early for rank {rank}: step {missing.step} did not come")


def expect_rows(batch: dict[str, np.ndarray], expected: MicroBatch | None, epoch: int | None) -> None:
    """Raise `RuntimeError` unless `batch` is the micro batch `expected` of `epoch` (None: of any epoch)."""
    if expected is None:
        raise RuntimeError(f"epoch {epoch} has more rows than its plan")
    same = (
        np.array_equal(batch["clip"], expected.clips)
        and (epoch is None or (batch["epoch"] == epoch).all())
        and (batch["step"] == expected.step).all()
        and (batch["accumulation"] == expected.accumulation).all()
    )
    if not same:
        raise RuntimeError(
            f"expected epoch {epoch} {expected}, but Ray Data delivered epochs {batch['epoch'].tolist()}, steps "
            f"{batch['step'].tolist()}, clips {batch['clip'].tolist()}; this Ray version splits blocks in another way"
        )


def unreadable_clips(batch: dict[str, np.ndarray]) -> dict[str, str]:
    """Reason by clip id of the clips in `batch` that could not be read; padding is not among them."""
    broken = ~batch["valid"].astype(bool) & (batch["clip"] != PADDING)
    return dict(zip(batch["clip_id"][broken].tolist(), batch["reason"][broken].tolist(), strict=True))


def check_unreadable(unreadable: int, clips: int, allowed: float, split: str) -> None:
    """Raise `UserError` when more than the share `allowed` of a split's clips could not be read."""
    if unreadable > allowed * clips:
        raise UserError(
            f"{unreadable} of {clips} clips in the {split} split are unreadable, more than data.max-unreadable "
            f"{allowed:.2%}; repair or remove them (each is listed with its reason), or raise --data.max-unreadable"
        )
