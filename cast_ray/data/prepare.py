"""How a manifest becomes a sharded dataset: one Ray task per shard, finished shards kept."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import ray
from rich.console import Console
from rich.progress import Progress

from cast_ray.cluster import get
from cast_ray.data.manifest import Manifest
from cast_ray.data.shards import (
    ShardedDataset,
    ShardPlan,
    fingerprint,
    open_dataset,
    shard_plan,
    write_index,
    write_shard,
)

__all__ = ["prepare"]

SHARDS_IN_FLIGHT = 64


def prepare(manifest: Manifest, storage: str, console: Console) -> ShardedDataset:
    """The manifest as shards under `storage`, written now unless they are there already.

    The folder's name is the manifest's fingerprint, so an interrupted preparation is continued, and other clips or
    labels never mix with these.

    Raises:
        UserError: a video file cannot be read.
    """
    root = f"{storage}/shards/{fingerprint(manifest)}"
    dataset = open_dataset(root)
    if dataset is not None:
        console.print(f"data: {dataset.index.num_rows} clips, prepared before, at {root}", soft_wrap=True)
        return dataset
    plans = shard_plan(manifest)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        size = sum(progress.track(_written(root, plans), total=len(plans), description="data: writing shards"))
    dataset = write_index(root, manifest)
    console.print(
        f"data: {dataset.index.num_rows} clips in {len(plans)} shards, {size / 1e6:.1f} MB, at {root}", soft_wrap=True
    )
    return dataset


def _written(root: str, plans: list[ShardPlan]) -> Iterator[int]:
    """Sizes of the shards in bytes, as they are finished."""
    task = ray.remote(write_shard)
    running: list[ray.ObjectRef] = []
    waiting = iter(plans)
    while True:
        running += [task.remote(root, plan) for plan in itertools.islice(waiting, SHARDS_IN_FLIGHT - len(running))]
        if not running:
            return
        done, running = ray.wait(running)
        yield from (get(shard) for shard in done)
