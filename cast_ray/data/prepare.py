"""How a manifest becomes a sharded dataset: one Ray task per shard, finished shards kept."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.fs as pafs
import ray
from ray.actor import ActorHandle
from rich.console import Console

from cast_ray.cluster import get, on_this_node
from cast_ray.data.ingest import stored_clips
from cast_ray.data.manifest import Clip, Manifest
from cast_ray.data.media import MediaFormat, StoredClip
from cast_ray.data.progress import ClipProgress
from cast_ray.data.shards import (
    CLIPS_PER_SHARD,
    ShardedDataset,
    ShardPlan,
    fingerprint,
    finished_shard,
    open_dataset,
    shard_plan,
    source_sizes,
    write_index,
    write_shard,
)
from cast_ray.data.storage import PARTIAL, check_writable, filesystem, joined, retried, written_whole
from cast_ray.errors import UserError

__all__ = ["Preparation", "check_cores", "prepare", "prepare_run"]

SHARDS_IN_FLIGHT = 1024
RETRIES = 3
SHARDS_PER_PROCESS = 4
"""Shards after which a worker process is replaced by a new one: decoders lose memory."""
REPORT_EVERY_S = 2.0
STOP_WAIT_S = 15.0


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """What a preparation did."""

    dataset: ShardedDataset
    clips_made: int
    """Clips that were not there from an earlier run."""
    source_bytes: int
    """Size of the video files."""
    seconds: float


def prepare_run(manifest: Manifest, storage: str, console: Console) -> ShardedDataset:
    """The manifest as shards among the runs under `storage`, written now unless they are there already.

    The folder's name is the dataset's fingerprint, so an interrupted preparation is continued, and other clips or
    labels never mix with these.

    Raises:
        UserError: as `prepare`.
    """
    media_format = MediaFormat()
    _check_clips(manifest)
    sizes = source_sizes(manifest)
    digest = fingerprint(manifest, media_format, sizes)
    root = joined(storage, "shards", digest)
    check_writable(root)
    done = _prepare(manifest, root, media_format, console, sizes=sizes, digest=digest)
    there = "" if done.clips_made else ", prepared before"
    size = sum(done.dataset.index["bytes"].to_pylist())
    console.print(f"data: {done.dataset.index.num_rows:,} clips, {size / 1e6:.1f} MB{there}, at {root}", soft_wrap=True)
    return done.dataset


def prepare(
    manifest: Manifest,
    root: str,
    media_format: MediaFormat,
    console: Console,
    *,
    clips_per_shard: int = CLIPS_PER_SHARD,
    cpus_per_task: float = 1.0,
) -> Preparation:
    """The manifest as shards at `root`; what is there already of the same dataset is kept.

    Several jobs may prepare the same dataset at once; each shard is that of the first one.

    Args:
        manifest: the clips.
        root: path or URI that every node reaches.
        media_format: how they are stored.
        console: where progress goes.
        clips_per_shard: clips in one file, which one task writes.
        cpus_per_task: CPU cores that Ray sets aside for one task.

    Raises:
        UserError: there are no clips, a video file is missing or cannot be read, `root` cannot be written, holds
            another dataset or runs full, or a worker process dies again and again.
    """
    _check_clips(manifest)
    check_writable(root)
    sizes = source_sizes(manifest)
    return _prepare(
        manifest,
        root,
        media_format,
        console,
        sizes=sizes,
        digest=fingerprint(manifest, media_format, sizes),
        clips_per_shard=clips_per_shard,
        cpus_per_task=cpus_per_task,
    )


def _check_clips(manifest: Manifest) -> None:
    if not manifest.clips:
        raise UserError("there are no clips to prepare; see that the annotations are those of these videos")


def _prepare(
    manifest: Manifest,
    root: str,
    media_format: MediaFormat,
    console: Console,
    *,
    sizes: Mapping[str, int],
    digest: str,
    clips_per_shard: int = CLIPS_PER_SHARD,
    cpus_per_task: float = 1.0,
) -> Preparation:
    """`prepare` with what is known of the clips: `source_sizes` and `fingerprint`."""
    started = time.monotonic()
    _check_same(root, _mark(manifest, media_format, digest, clips_per_shard))
    dataset = open_dataset(root)
    made = 0
    if dataset is None:
        plans = shard_plan(manifest, clips_per_shard)
        there = _already(root, plans, console)
        shards = _shards(root, plans, media_format, console, there=there, cpus_per_task=cpus_per_task)
        _remove_partial(root)
        dataset = write_index(root, manifest, media_format, shards, digest=digest)
        made = len(manifest.clips) - there
    return Preparation(
        dataset=dataset,
        clips_made=made,
        source_bytes=sum(sizes.values()),
        seconds=time.monotonic() - started,
    )


def check_cores(cpus_per_task: float, *, may_grow: bool, console: Console) -> None:
    """Raise `UserError` if no node can ever run a task; say so if one has yet to come."""
    has = max((node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"]), default=0.0)
    if has >= cpus_per_task:
        return
    text = f"a task needs {cpus_per_task:g} CPU cores, the largest node has {has:g}"
    if not may_grow:
        raise UserError(f"{text}; lower --cpus-per-task")
    console.print(f"{text}; waiting for the cluster to grow", soft_wrap=True)


def _mark(manifest: Manifest, media_format: MediaFormat, digest: str, clips_per_shard: int) -> dict[str, object]:
    """What the shards depend on; for another mark they cannot be used."""
    return {
        **media_format.stored,
        "clips": len(manifest.clips),
        "clips_per_shard": clips_per_shard,
        "fingerprint": digest,
    }


def _check_same(root: str, mark: dict[str, object]) -> None:
    """Leave a mark of what is prepared at `root`; `UserError` if it is something else."""
    storage, base = filesystem(root)
    path = f"{base}/preparation.json"

    def leave_and_read() -> bytes:
        if storage.get_file_info(path).type != pafs.FileType.File:
            with written_whole(storage, path, replace=False) as sink:
                sink.write(json.dumps(mark, indent=2).encode())
        with storage.open_input_file(path) as source:
            return source.read()

    text = retried(leave_and_read, what=f"preparation.json of {root}")
    try:
        there = dict(json.loads(text))
    except (ValueError, TypeError) as error:
        raise UserError(f"preparation.json of {root} is damaged ({error}); remove that folder") from error
    differing = [
        f"{name} {there.get(name)} instead of {value}" for name, value in mark.items() if there.get(name) != value
    ]
    if differing:
        raise UserError(
            f"{root} holds shards of other clips or of another format ({', '.join(differing)}); give another folder, "
            "or remove that one"
        )


def _already(root: str, plans: list[ShardPlan], console: Console) -> int:
    """How many clips are in finished shards; says so if there are any."""
    storage, base = filesystem(root)
    selector = pafs.FileSelector(base, recursive=True)
    files = retried(lambda: storage.get_file_info(selector), what=root)
    found = {info.path.removeprefix(f"{base}/") for info in files if info.type == pafs.FileType.File}
    finished = [plan for plan in plans if plan.path in found]
    if finished:
        console.print(f"data: continuing: {len(finished)} of {len(plans)} shards are there", highlight=False)
    return sum(len(plan.clips) for plan in finished)


def _remove_partial(root: str) -> None:
    """Remove what a killed job left of shards; another job that still writes one finds the shard there in the end."""
    storage, base = filesystem(root)
    for info in storage.get_file_info(pafs.FileSelector(base, recursive=True)):
        if info.path.endswith(PARTIAL) and "/" in info.path.removeprefix(f"{base}/"):
            with suppress(OSError):
                storage.delete_file(info.path)


class _Board:
    """The actor that knows how many clips of every shard are done."""

    def __init__(self) -> None:
        self._done: dict[str, int] = {}

    def put(self, path: str, done: int) -> None:
        self._done[path] = done

    def total(self) -> int:
        return sum(self._done.values())


def _make_shard(
    root: str, plan: ShardPlan, media_format: MediaFormat, board: ActorHandle, deadly: Container[str]
) -> pa.Table:
    """The index rows of one shard, which is written unless it is there already; `deadly` clips are not looked into."""
    rows = finished_shard(root, plan.path)
    if rows is None:
        rows = write_shard(root, plan.path, _counted(_stored(plan.clips, media_format, deadly), plan.path, board))
    board.put.remote(plan.path, len(plan.clips))
    return rows


def _stored(clips: Sequence[Clip], media_format: MediaFormat, deadly: Container[str]) -> Iterator[StoredClip]:
    for is_deadly, group in itertools.groupby(clips, key=lambda clip: clip.clip_id in deadly):
        if is_deadly:
            yield from (StoredClip(clip=clip, reason="decoding crashes the process") for clip in group)
        else:
            yield from stored_clips(list(group), media_format)


def _try_clip(clip: Clip, media_format: MediaFormat) -> None:
    """Do all that is done for a clip, and keep nothing."""
    for _ in stored_clips([clip], media_format):
        pass


def _counted(clips: Iterable[StoredClip], path: str, board: ActorHandle) -> Iterator[StoredClip]:
    reported = time.monotonic()
    for number, clip in enumerate(clips):
        if time.monotonic() - reported >= REPORT_EVERY_S:
            board.put.remote(path, number)
            reported = time.monotonic()
        yield clip


def _shards(
    root: str,
    plans: list[ShardPlan],
    media_format: MediaFormat,
    console: Console,
    *,
    there: int,
    cpus_per_task: float,
) -> list[pa.Table]:
    """The index rows of every shard, in order."""
    task = ray.remote(
        num_cpus=cpus_per_task,
        max_calls=SHARDS_PER_PROCESS,
        max_retries=RETRIES,
        retry_exceptions=[OSError],
        scheduling_strategy="SPREAD",
    )(_make_shard)
    board = ray.remote(num_cpus=0, scheduling_strategy=on_this_node())(_Board).remote()
    rows: dict[str, pa.Table] = {}
    deadly: dict[str, frozenset[str]] = {}
    running: dict[ray.ObjectRef, ShardPlan] = {}
    waiting = iter(plans)
    total = sum(len(plan.clips) for plan in plans)
    with ClipProgress(console, total, there=there) as progress:
        try:
            while True:
                for plan in itertools.islice(waiting, SHARDS_IN_FLIGHT - len(running)):
                    running[task.remote(root, plan, media_format, board, ())] = plan
                if not running:
                    return [rows[plan.path] for plan in plans]
                for shard in ray.wait(list(running), timeout=1.0)[0]:
                    plan = running.pop(shard)
                    try:
                        rows[plan.path] = _result(shard, plan)
                    except ray.exceptions.WorkerCrashedError as error:
                        if plan.path in deadly:
                            raise _died(plan, error) from error
                        deadly[plan.path] = _deadly_clips(plan, media_format, cpus_per_task)
                        if not deadly[plan.path]:
                            raise _died(plan, error) from error
                        running[task.remote(root, plan, media_format, board, deadly[plan.path])] = plan
                with suppress(ray.exceptions.RayError):  # of the board; it only counts
                    progress.update(max(there, ray.get(board.total.remote(), timeout=10)))
        finally:
            _stop(list(running))


def _result(shard: ray.ObjectRef, plan: ShardPlan) -> pa.Table:
    """The rows of a finished task, or what went wrong, in words; `WorkerCrashedError` may be the fault of a clip."""
    try:
        return get(shard)
    except OSError as error:
        cause = getattr(error, "cause", error)
        raise UserError(
            f"{_named(plan)} could not be written, {RETRIES + 1} times: {cause}; see that the storage can be reached, "
            "and start the same command again: finished shards are kept"
        ) from error
    except ray.exceptions.OutOfMemoryError as error:
        raise _died(plan, error) from error


def _named(plan: ShardPlan) -> str:
    return f"shard {plan.path} (clips '{plan.clips[0].clip_id}' to '{plan.clips[-1].clip_id}')"


def _died(plan: ShardPlan, error: Exception) -> UserError:
    return UserError(
        f"the process that prepared {_named(plan)} died {RETRIES + 1} times: {str(error).splitlines()[0]}; if memory "
        "ran out, raise --cpus-per-task so that fewer run at once; finished shards are kept"
    )


def _deadly_clips(plan: ShardPlan, media_format: MediaFormat, cpus_per_task: float) -> frozenset[str]:
    """Clips of the shard that make a process of their own die, twice: one death may have been the machine's."""
    task = ray.remote(num_cpus=cpus_per_task, max_retries=1)(_try_clip)
    tries = {clip.clip_id: task.remote(clip, media_format) for clip in plan.clips}
    deadly = set()
    try:
        for clip_id, done in tries.items():
            try:
                get(done)
            except ray.exceptions.WorkerCrashedError:
                deadly.add(clip_id)
            except ray.exceptions.OutOfMemoryError as error:
                raise _died(plan, error) from error
    finally:
        _stop(list(tries.values()))
    return frozenset(deadly)


def _stop(running: list[ray.ObjectRef]) -> None:
    """Stop tasks that nobody waits for any more, and let them remove what they have begun."""
    if running and ray.is_initialized():
        for shard in running:
            ray.cancel(shard)
        ray.wait(running, num_returns=len(running), timeout=STOP_WAIT_S)
