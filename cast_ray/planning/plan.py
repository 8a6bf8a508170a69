"""How long a run takes, what it needs from the cluster, and what limits it: plain arithmetic on known numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from cast_ray.config import RunConfig
from cast_ray.data.order import EpochPlan
from cast_ray.errors import UserError
from cast_ray.planning.datasets import Dataset
from cast_ray.planning.gpus import Gpu
from cast_ray.planning.known import Known
from cast_ray.planning.memory import FULL, Memory, memory_of
from cast_ray.planning.rates import DataRates
from cast_ray.planning.work import Work

__all__ = ["OBJECT_STORE_SHARE", "OFFLOADED_PER_SECOND", "Cluster", "Plan", "make_plan"]

OBJECT_STORE_SHARE = 0.3
"""Share of a node's memory that Ray takes for its object store unless told otherwise."""
BLOCKS_PER_TASK = 2
"""Blocks of decoded clips in the object store for every decode task at work: its own, and one that waits."""
BLOCKS_PER_WORKER = 2
"""And for every training worker: the one that it takes batches from, and the next."""
FLOPS_PER_MULTIPLY_ADD = 2
OFFLOADED_PER_SECOND = 120e6
"""Weights that AdamW of torch updates per second and core; measured here (docs/planning.md)."""


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """The machines; what is not known does not limit."""

    nodes: int
    gpus_per_node: int
    gpu: Gpu
    cpus_per_node: float | None
    memory_per_node: float | None
    """Bytes."""
    network: float
    """Bytes per second into a node, and as many out of it."""
    storage: float | None
    """Bytes per second that the dataset's storage delivers to all nodes together."""

    @property
    def gpus(self) -> int:
        return self.nodes * self.gpus_per_node


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run will be like; times in seconds, sizes in bytes."""

    memory: Memory
    limits: Mapping[str, float]
    """Clips per second of training that each part of the cluster allows for; infinite where nothing is known."""
    limited_by: str
    steps_per_epoch: int
    step_seconds: float
    exchange_seconds: float
    """Of a step, in which gradients, and with ZeRO 3 weights, cross the network; part of what the GPUs allow for."""
    update_seconds: float
    """Of a step, in which the CPU updates what is offloaded; likewise."""
    epoch_seconds: float
    """Of training."""
    validation_seconds: float
    test_seconds: float
    run_seconds: float
    gpu_hours: float
    cores_per_gpu: float
    """Decode cores that keep one GPU busy."""
    cores_per_node: float
    """With those that the training workers set aside."""
    read_per_node: float
    """Bytes per second of stored clips, at the run's speed."""
    decoded_per_node: float
    """Bytes per second of decoded clips from other nodes, likewise."""
    object_store_per_node: float
    offloaded_per_node: float
    """Main memory that the optimiser takes."""
    dataset_bytes: float
    checkpoint_bytes: float

    @property
    def clips_per_second(self) -> float:
        return self.limits[self.limited_by]


def make_plan(
    config: RunConfig, cluster: Cluster, dataset: Dataset, work: Work, *, flops: Known, data: DataRates
) -> Plan:
    """Work out a run.

    Args:
        config: with as many workers as the cluster has GPUs.
        cluster: the machines.
        dataset: its clips.
        work: of `config`.
        flops: FLOP/s of a training step on one GPU.
        data: bytes and core seconds of a clip.

    Raises:
        UserError: the nodes have no core left for decoding, or no room for a decoded block.
    """
    train = EpochPlan(
        num_clips=round(dataset.train_clips.value),
        seed=config.seed,
        micro_batch=config.batch.micro_batch,
        micro_batches_per_step=config.batch.micro_batches_per_step,
        world_size=cluster.gpus,
        repeats=config.augment.repeats,
    )
    exchange, update = _exchange(config, cluster, work), _update(config, work)
    step = train.micro_batch * train.accumulation * _computing(cluster, work, flops) + exchange + update
    others = _data_limits(config, cluster, work, data)
    _require_some(others, config, cluster)
    limits = {"GPU": train.global_batch / step, **others}
    limited_by = min(limits, key=lambda name: limits[name])
    speed = limits[limited_by]
    epoch = train.steps_per_epoch * train.global_batch / speed
    # One view costs the GPU its forward pass; the data of a view is taken to cost as much as that of a training clip.
    forward = cluster.gpus * flops.value / (FLOPS_PER_MULTIPLY_ADD * work.costs.multiply_adds)
    one_view = dataset.validation_clips.value / min(forward, *others.values())
    test = one_view * config.test.temporal_views * config.test.spatial_crops
    run = config.optim.epochs * epoch + config.optim.epochs // config.validate_every * one_view + test
    core_seconds = data.core_seconds.value * config.data.cpus_per_decode
    gpu_speed = limits["GPU"] / cluster.gpus
    reserved = config.scale.cpus_per_worker * cluster.gpus_per_node
    kept = (2 if config.optim.kind == "adamw" else 1) + bool(config.optim.ema_decay)
    memory = memory_of(config, work.costs, work.activations, gpu_memory=cluster.gpu.memory)
    return Plan(
        memory=memory,
        limits=limits,
        limited_by=limited_by,
        steps_per_epoch=train.steps_per_epoch,
        step_seconds=train.global_batch / speed,
        exchange_seconds=exchange,
        update_seconds=update,
        epoch_seconds=epoch,
        validation_seconds=one_view,
        test_seconds=test,
        run_seconds=run,
        gpu_hours=run * cluster.gpus / 3600,
        cores_per_gpu=gpu_speed * core_seconds,
        cores_per_node=gpu_speed * core_seconds * cluster.gpus_per_node + reserved,
        read_per_node=speed * data.stored_bytes.value / cluster.nodes,
        decoded_per_node=speed * work.decoded_bytes * _from_elsewhere(cluster) / cluster.nodes,
        object_store_per_node=_blocks(_tasks(config, cluster, speed * data.core_seconds.value), cluster)
        * _block(config, work),
        offloaded_per_node=memory.host * cluster.gpus_per_node,
        dataset_bytes=(dataset.train_clips.value + dataset.validation_clips.value) * data.stored_bytes.value,
        checkpoint_bytes=FULL * work.costs.trainable_parameters * (1 + kept),
    )


def _computing(cluster: Cluster, work: Work, flops: Known) -> float:
    """Seconds of one clip's forward and backward pass.

    Everything kept for the backward pass is written and read once, which a GPU cannot do faster than its memory allows.
    """
    computing = FLOPS_PER_MULTIPLY_ADD * work.step_multiply_adds / flops.value
    moving = 2 * work.activations.kept / cluster.gpu.bandwidth
    return max(computing, moving)


def _exchange(config: RunConfig, cluster: Cluster, work: Work) -> float:
    """Seconds of one update in which gradients and weights cross the network, in a ring of all nodes.

    Gradients as float32, there and back: once per update, from ZeRO stage 2 on once per micro batch. Stage 3 sends
    gradients one way only, but all weights for every forward and every backward pass. In stages 0 to 2 DeepSpeed does
    not overlap it with the computation; stage 3, which does in part, is counted as if it did not.
    """
    costs, scale = work.costs, config.scale
    size = FULL if scale.precision == "float32" else FULL // 2
    values = FULL * costs.trainable_parameters
    sent = 2 * size * costs.parameters + values if scale.zero_stage == 3 else 2 * values
    times = config.batch.accumulation(cluster.gpus) if scale.zero_stage >= 2 else 1
    return times * _from_elsewhere(cluster) * sent / cluster.network


def _update(config: RunConfig, work: Work) -> float:
    """Seconds in which a worker's cores update its share of the offloaded weights."""
    scale = config.scale
    if not scale.offload_optimizer:
        return 0.0
    return (
        work.costs.trainable_parameters / scale.num_workers / (OFFLOADED_PER_SECOND * max(1.0, scale.cpus_per_worker))
    )


def _data_limits(config: RunConfig, cluster: Cluster, work: Work, data: DataRates) -> dict[str, float]:
    """Clips per second that the parts before the GPU allow for."""
    stored, seconds = data.stored_bytes.value, data.core_seconds.value
    arriving = stored + work.decoded_bytes * _from_elsewhere(cluster)
    limits = {
        "network": cluster.nodes * cluster.network / arriving,
        "storage": math.inf if cluster.storage is None else cluster.storage / stored,
        "decode cores": math.inf,
        "object store": math.inf,
    }
    if cluster.cpus_per_node is not None:
        limits["decode cores"] = cluster.nodes * _free_tasks(config, cluster, cluster.cpus_per_node) / seconds
    if cluster.memory_per_node is not None:
        blocks = cluster.memory_per_node * OBJECT_STORE_SHARE / _block(config, work)
        tasks = max(0.0, blocks - BLOCKS_PER_WORKER * cluster.gpus_per_node) / BLOCKS_PER_TASK
        limits["object store"] = cluster.nodes * tasks / seconds
    return limits


def _require_some(limits: Mapping[str, float], config: RunConfig, cluster: Cluster) -> None:
    if limits["decode cores"] <= 0:
        raise UserError(
            f"{cluster.gpus_per_node} training workers set aside {config.scale.cpus_per_worker:g} cores each, of "
            f"{cluster.cpus_per_node:g} per node, so that none is left to decode; lower --scale.cpus-per-worker or "
            "take nodes with more cores"
        )
    if limits["object store"] <= 0:
        raise UserError(
            f"{OBJECT_STORE_SHARE:.0%} of a node's memory do not hold {BLOCKS_PER_WORKER} blocks of decoded clips for "
            f"each of {cluster.gpus_per_node} workers; lower --data.clips-per-task or take nodes with more memory"
        )


def _free_tasks(config: RunConfig, cluster: Cluster, cpus: float) -> float:
    """Decode tasks at a time on a node, on the cores that training workers leave."""
    free = cpus - config.scale.cpus_per_worker * cluster.gpus_per_node
    return max(0.0, free) / config.data.cpus_per_decode


def _tasks(config: RunConfig, cluster: Cluster, busy: float) -> float:
    """Decode tasks at a time on a node: as many as its cores allow for, because Ray starts them; else as are needed."""
    if cluster.cpus_per_node is None:
        return busy / cluster.nodes
    return _free_tasks(config, cluster, cluster.cpus_per_node)


def _blocks(tasks: float, cluster: Cluster) -> float:
    return BLOCKS_PER_TASK * tasks + BLOCKS_PER_WORKER * cluster.gpus_per_node


def _block(config: RunConfig, work: Work) -> float:
    """Bytes of the decoded clips of one task."""
    micro_batch = config.batch.micro_batch
    return max(1, config.data.clips_per_task // micro_batch) * micro_batch * work.decoded_bytes


def _from_elsewhere(cluster: Cluster) -> float:
    """Share of what a node gets that comes from other nodes, if it comes from anywhere alike."""
    return (cluster.nodes - 1) / cluster.nodes
