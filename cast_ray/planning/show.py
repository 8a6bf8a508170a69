"""How a plan is told: tables for the terminal, in which every number has its origin, and the same as JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cast_ray.config import RunConfig
from cast_ray.planning.datasets import Dataset
from cast_ray.planning.known import ASSUMED, COUNTED, Known
from cast_ray.planning.memory import CONTEXT, USABLE
from cast_ray.planning.plan import (
    BLOCKS_PER_TASK,
    BLOCKS_PER_WORKER,
    OBJECT_STORE_SHARE,
    OFFLOADED_PER_SECOND,
    Cluster,
    Plan,
)
from cast_ray.planning.rates import DataRates
from cast_ray.planning.work import Work

__all__ = ["Shown", "show", "to_dict"]

MEMORY = (
    "frozen_weights",
    "trainable_weights",
    "gathered_weights",
    "gradients",
    "optimizer",
    "average",
    "reduction",
    "per_clip",
    "activations",
)
"""Fields of `cast_ray.planning.memory.Memory` that are told."""
WIDTH = 118
"""Columns that the tables need."""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A plan with all that it was made of."""

    recipe: str
    gpu_name: str
    media: str
    config: RunConfig
    cluster: Cluster
    dataset: Dataset
    work: Work
    flops: Known
    data: DataRates
    plan: Plan
    price_per_gpu_hour: float | None
    remedies: tuple[str, ...]
    """Settings with which it would fit."""

    @property
    def cost(self) -> float | None:
        return None if self.price_per_gpu_hour is None else self.price_per_gpu_hour * self.plan.gpu_hours


def show(shown: Shown, console: Console) -> None:
    """Print tables, what limits the run, and whether it fits."""
    # A pipe counts as 80 columns wide, and would break every line.
    console = Console(file=console.file, width=max(console.width, WIDTH))
    cluster, plan, batch = shown.cluster, shown.plan, shown.config.batch
    console.print(
        f"{shown.recipe}: {shown.config.model.name} on {cluster.nodes} nodes x {cluster.gpus_per_node} "
        f"{shown.gpu_name}, micro batch {batch.micro_batch} x {cluster.gpus} GPUs x "
        f"{batch.accumulation(cluster.gpus)} passes = {batch.global_batch} clips, "
        f"{shown.config.scale.precision}, ZeRO {shown.config.scale.zero_stage}, stored as {shown.media}",
        style="bold",
        highlight=False,
    )
    for title, rows in (
        ("Memory of a GPU", _memory_rows(shown)),
        ("Clips per second", _speed_rows(shown)),
        ("Needed", _need_rows(shown)),
        ("Time", _time_rows(shown)),
        ("Taken as known", _known_rows(shown)),
    ):
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left", show_header=False)
        table.add_column(no_wrap=True)
        table.add_column(justify="left" if title == "Taken as known" else "right", no_wrap=True)
        table.add_column()
        for row in rows:
            table.add_row(*map(Text, row))
        console.print(table)
    console.print(
        f"Limited by: {plan.limited_by} ({plan.clips_per_second:,.0f} clips/s of the {plan.limits['GPU']:,.0f} that "
        "these GPUs could train with)",
        style="bold",
        highlight=False,
    )
    if not plan.memory.fits:
        console.print(Text(_does_not_fit(shown)), style="bold red")


def to_dict(shown: Shown) -> dict[str, Any]:
    """Everything, in bytes, seconds and clips; limits that nothing is known about are null."""
    plan, memory, data = shown.plan, shown.plan.memory, shown.data
    return {
        "recipe": shown.recipe,
        "model": shown.config.model.name,
        "nodes": shown.cluster.nodes,
        "gpus_per_node": shown.cluster.gpus_per_node,
        "gpu": shown.gpu_name,
        "media": shown.media,
        "memory_per_gpu": {
            **{name: getattr(memory, name) for name in MEMORY},
            "needed": memory.needed,
            "available": memory.available,
            "fits": memory.fits,
            "largest_micro_batch": memory.largest_micro_batch,
            "would_fit_with": list(shown.remedies),
        },
        "clips_per_second": {
            "run": plan.clips_per_second,
            "limits": {name: None if math.isinf(limit) else limit for name, limit in plan.limits.items()},
        },
        "limited_by": plan.limited_by,
        "decode_cores_per_gpu": plan.cores_per_gpu,
        "cores_per_node": plan.cores_per_node,
        "read_bytes_per_second_per_node": plan.read_per_node,
        "decoded_bytes_per_second_per_node": plan.decoded_per_node,
        "object_store_bytes_per_node": plan.object_store_per_node,
        "offloaded_bytes_per_node": plan.offloaded_per_node,
        "dataset_bytes": plan.dataset_bytes,
        "checkpoint_bytes": plan.checkpoint_bytes,
        "steps_per_epoch": plan.steps_per_epoch,
        "seconds": {
            "step": plan.step_seconds,
            "gradient_exchange": plan.exchange_seconds,
            "update_on_cpu": plan.update_seconds,
            "epoch": plan.epoch_seconds,
            "validation": plan.validation_seconds,
            "test": plan.test_seconds,
            "run": plan.run_seconds,
        },
        "gpu_hours": plan.gpu_hours,
        "cost": shown.cost,
        "origins": {
            "achieved_flops": shown.flops.origin,
            "stored_bytes_per_clip": data.stored_bytes.origin,
            "core_seconds_per_clip": data.core_seconds.origin,
            "train_clips": shown.dataset.train_clips.origin,
            "clip_seconds": shown.dataset.seconds.origin,
            "clip_fps": shown.dataset.fps.origin,
        },
        "assumptions": [" ".join(row) for row in _known_rows(shown)],
    }


def _does_not_fit(shown: Shown) -> str:
    memory = shown.plan.memory
    message = f"Does not fit: {_size(memory.needed)} needed of {_size(memory.available)} on one {shown.gpu_name}."
    if not shown.remedies:
        return f"{message} No setting makes it fit; take a GPU with more memory."
    return f"{message} It fits with {', or with '.join(shown.remedies)}."


def _memory_rows(shown: Shown) -> Iterator[tuple[str, str, str]]:
    memory, costs, scale = shown.plan.memory, shown.work.costs, shown.config.scale
    frozen, trained = (costs.parameters - costs.trainable_parameters) / 1e6, costs.trainable_parameters / 1e6
    checkpointed = "with" if shown.config.model.checkpoint_activations else "without"
    shared = f", shared out among {scale.min_workers or scale.num_workers}"
    of_optimizer, of_gradients, of_weights = (shared if scale.zero_stage >= stage else "" for stage in (1, 2, 3))
    yield "frozen weights", _size(memory.frozen_weights), f"{frozen:.1f} M, {COUNTED}{of_weights}"
    yield "trainable weights", _size(memory.trainable_weights), f"{trained:.1f} M, {COUNTED}{of_weights}"
    if memory.gathered_weights:
        yield "gathered weights", _size(memory.gathered_weights), "those at work, and the next ones"
    yield "gradients", _size(memory.gradients), f"as wide as the weights{of_gradients}"
    elsewhere = "in the machine's memory; " if scale.offload_optimizer else ""
    yield "optimiser", _size(memory.optimizer), f"{elsewhere}{shown.config.optim.kind}, float32{of_optimizer}"
    if shown.config.optim.ema_decay:
        yield "moving average", _size(memory.average), f"{elsewhere}float32{of_optimizer}"
    yield "reduction", _size(memory.reduction), "buffer of DeepSpeed, and what is float32 of the gradients"
    yield (
        f"activations of {memory.micro_batch} clips",
        _size(memory.activations),
        f"{memory.per_clip / 1e6:.0f} MB per clip {checkpointed} checkpointing, {COUNTED}",
    )
    share = memory.needed / memory.available
    yield "together", _size(memory.needed), f"{share:.0%} of the {_size(memory.available)} that are free for it"
    yield "largest micro batch", str(memory.largest_micro_batch), "clips that would fit"


def _speed_rows(shown: Shown) -> Iterator[tuple[str, str, str]]:
    cluster, data, plan = shown.cluster, shown.data, shown.plan
    unknown = {"storage": "--storage-gbyte", "decode cores": "--cpus-per-node", "object store": "--memory-gb-per-node"}
    work = 2 * shown.work.step_multiply_adds / 1e12
    notes = {
        "GPU": f"{shown.flops.value / 1e12:.0f} TFLOP/s per GPU, {work:.3f} TFLOP per clip",
        "network": f"{cluster.network / 1e9:g} GB/s per node; stored clips, and decoded ones from other nodes",
        "storage": f"{data.stored_bytes.value / 1e3:.0f} KB per clip",
        "decode cores": f"{1 / data.core_seconds.value:.0f} clips/s per core",
        "object store": f"{OBJECT_STORE_SHARE:.0%} of the nodes' memory",
    }
    for name, limit in plan.limits.items():
        known = not math.isinf(limit)
        yield name, f"{limit:,.0f}" if known else "not known", notes[name] if known else f"give {unknown[name]}"


def _need_rows(shown: Shown) -> Iterator[tuple[str, str, str]]:
    plan, scale = shown.plan, shown.config.scale
    yield "decode cores per GPU", f"{plan.cores_per_gpu:.1f}", "to keep it busy"
    yield "cores per node", f"{plan.cores_per_node:.0f}", f"with {scale.cpus_per_worker:g} for each training worker"
    yield "object store per node", _size(plan.object_store_per_node), "blocks of decoded clips on their way"
    if plan.offloaded_per_node:
        yield (
            "offloaded per node",
            _size(plan.offloaded_per_node),
            "optimiser's state and its gradients, in main memory",
        )
    yield "dataset", _size(plan.dataset_bytes), "training and validation clips, prepared"
    yield "read per node", f"{_size(plan.read_per_node)}/s", "stored clips, at the speed of the run"
    yield "decoded clips per node", f"{_size(plan.decoded_per_node)}/s", "from other nodes, likewise"
    kept = shown.config.keep_checkpoints + 1
    yield "checkpoint", _size(plan.checkpoint_bytes), f"what trains and the optimiser's state; up to {kept} are kept"


def _time_rows(shown: Shown) -> Iterator[tuple[str, str, str]]:
    plan, config = shown.plan, shown.config
    weights = " and weights" if config.scale.zero_stage == 3 else ""
    update = f", update on the CPU {plan.update_seconds:.3f} s" if plan.update_seconds else ""
    yield (
        "step",
        f"{plan.step_seconds:.3f} s",
        f"of {config.batch.global_batch} clips; exchange of gradients{weights} {plan.exchange_seconds:.3f} s{update}",
    )
    yield (
        "epoch",
        _time(plan.epoch_seconds),
        f"{plan.steps_per_epoch} steps; validation {_time(plan.validation_seconds)}",
    )
    views = config.test.temporal_views * config.test.spatial_crops
    yield "test", _time(plan.test_seconds), f"{views} views"
    yield "run", _time(plan.run_seconds), f"{config.optim.epochs} epochs, validation and test, without start-up"
    workers, fewest = config.scale.num_workers, config.scale.min_workers
    if fewest is not None and fewest < workers:
        slower = plan.run_seconds * workers / fewest
        yield f"run with {fewest} workers", _time(slower), f"if no more than that are left of {workers} from the start"
    cost = "" if shown.cost is None else f"{shown.cost:,.2f} at {shown.price_per_gpu_hour:g} each"
    yield "GPU hours", f"{plan.gpu_hours:,.1f}", cost


def _known_rows(shown: Shown) -> Iterator[tuple[str, str, str]]:
    dataset, data, gpu = shown.dataset, shown.data, shown.cluster.gpu
    yield "training clips", f"{dataset.train_clips.value:,.0f}", dataset.train_clips.origin
    yield "validation clips", f"{dataset.validation_clips.value:,.0f}", dataset.validation_clips.origin
    yield "length of a clip", f"{dataset.seconds.value:g} s", dataset.seconds.origin
    yield "frames per second", f"{dataset.fps.value:g}", dataset.fps.origin
    yield "speed of a GPU", f"{shown.flops.value / 1e12:.0f} TFLOP/s", shown.flops.origin
    yield (
        "memory of a GPU",
        _size(gpu.memory),
        f"stated by the vendor, as is its bandwidth, {gpu.bandwidth / 1e12:g} TB/s",
    )
    yield (
        "lost of it",
        _size(gpu.memory - shown.plan.memory.available),
        f"{_size(CONTEXT)} CUDA and NCCL, {1 - USABLE:.0%} in pieces; {ASSUMED}",
    )
    yield "decoding", f"{data.core_seconds.value * 1e3:.1f} ms", f"per clip and core; {data.core_seconds.origin}"
    yield "stored", f"{data.stored_bytes.value / 1e3:.0f} KB", "per clip; as decoding"
    if shown.plan.update_seconds:
        rate = f"{OFFLOADED_PER_SECOND / 1e6:g} M/s"
        yield "updates on a CPU", rate, "weights per core, by torch's AdamW; measured here (docs/planning.md)"
    yield "network", f"{shown.cluster.network * 8 / 1e9:g} Gbit/s", "--network-gbit"
    yield (
        "object store",
        f"{OBJECT_STORE_SHARE:.0%}",
        f"of a node's memory (Ray's default); {BLOCKS_PER_TASK} blocks per decode task and {BLOCKS_PER_WORKER} per "
        f"worker, {ASSUMED}",
    )


def _size(count: float) -> str:
    for unit, size in (("TB", 1e12), ("GB", 1e9)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count / 1e6:.1f} MB"


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
