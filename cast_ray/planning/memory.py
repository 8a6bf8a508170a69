"""Whether a training step fits into a GPU, and what would make it fit."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from cast_ray.config import RunConfig
from cast_ray.models.costs import Costs
from cast_ray.planning.activations import Activations
from cast_ray.training.buckets import bucket_size

__all__ = ["Memory", "memory_of", "remedies"]

CONTEXT = 1.5e9
"""Bytes that CUDA, its libraries and NCCL take for themselves; assumed."""
USABLE = 0.92
"""Share of the rest that PyTorch's allocator can fill before it is too much in pieces; assumed."""
FULL = 4
"""Bytes of a float32."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """What lies in the memory of one GPU, in bytes."""

    frozen_weights: float
    trainable_weights: float
    gathered_weights: float
    """With ZeRO 3: the whole weights of what is at work, and of what comes next."""
    gradients: float
    optimizer: float
    """This GPU's share of the moments and, from ZeRO stage 1 on, of a float32 copy of the weights."""
    average: float
    """Of the weights' moving average, divided as the weights are that the optimiser updates."""
    reduction: float
    """Buffer and float32 copy with which gradients are reduced, and float32 gradients of what this GPU updates."""
    per_clip: float
    micro_batch: int
    available: float
    """Of the GPU, less what CUDA takes and what is lost in pieces."""
    host: float
    """Of the machine's memory, for each GPU: what is offloaded."""

    @property
    def at_rest(self) -> float:
        """Without any clip."""
        return (
            self.frozen_weights
            + self.trainable_weights
            + self.gathered_weights
            + self.gradients
            + self.optimizer
            + self.average
            + self.reduction
        )

    @property
    def activations(self) -> float:
        """Of a micro batch."""
        return self.per_clip * self.micro_batch

    @property
    def needed(self) -> float:
        return self.at_rest + self.activations

    @property
    def fits(self) -> bool:
        return self.needed <= self.available

    @property
    def largest_micro_batch(self) -> int:
        """Clips that fit; 0 if not even one does."""
        return max(0, int((self.available - self.at_rest) // self.per_clip))


def memory_of(config: RunConfig, costs: Costs, activations: Activations, *, gpu_memory: float) -> Memory:
    """The memory of one GPU of a run, when it is largest: with the fewest workers that the run goes on with.

    ZeRO stage 1 shares out the optimiser's state, 2 the gradients too, 3 all weights too; DeepSpeed keeps its own
    float32 copy of the weights that train from stage 1 on. What stage 3 gathers is one bucket at work and one fetched
    ahead (`cast_ray.training.strategy.deepspeed_config`). Offloaded is what the optimiser needs: its state, the float32
    copy, their gradients (in stages 1 and 2 also as they arrive), and the moving average.

    Args:
        config: of the run; the number of workers counts.
        costs: parameters of the network.
        activations: traced in the run's precision.
        gpu_memory: bytes.
    """
    scale, trainable = config.scale, costs.trainable_parameters
    frozen, bucket = costs.parameters - trainable, bucket_size(costs.trainable_parameters)
    size = FULL if scale.precision == "float32" else FULL // 2
    share = 1 / (scale.min_workers or scale.num_workers)
    of_optimizer, of_gradients, of_weights = (share if scale.zero_stage >= stage else 1.0 for stage in (1, 2, 3))
    sharded = scale.zero_stage >= 1
    moments = 2 if config.optim.kind == "adamw" else 1
    optimizer = FULL * trainable * (moments + sharded) * of_optimizer
    average = FULL * trainable * of_optimizer if config.optim.ema_decay else 0.0
    updated = FULL * trainable * of_optimizer if sharded else 0.0
    arriving = size * trainable * of_optimizer if scale.zero_stage < 3 else 0.0
    return Memory(
        frozen_weights=size * frozen * of_weights,
        trainable_weights=size * trainable * of_weights,
        gathered_weights=size * min(2 * bucket, costs.parameters) if scale.zero_stage == 3 else 0.0,
        gradients=size * trainable * of_gradients,
        optimizer=0.0 if scale.offload_optimizer else optimizer,
        average=0.0 if scale.offload_optimizer else average,
        reduction=_reduction(scale.zero_stage, size, trainable) + (0.0 if scale.offload_optimizer else updated),
        per_clip=activations.per_clip(checkpointed=config.model.checkpoint_activations),
        micro_batch=config.batch.micro_batch,
        available=(gpu_memory - CONTEXT) * USABLE,
        host=optimizer + average + updated + arriving if scale.offload_optimizer else 0.0,
    )


def _reduction(stage: int, size: int, trainable: int) -> float:
    """Stage 0 copies all gradients into one tensor; the others have a bucket, and one in float32 to be sent."""
    if stage == 0:
        return FULL * trainable
    bucket = bucket_size(trainable)
    return bucket * (FULL if stage == 3 else size) + (FULL * bucket if size != FULL else 0)


def remedies(config: RunConfig, costs: Costs, activations: Activations, *, gpu_memory: float) -> tuple[str, ...]:
    """Flags with which the run would fit, the cheapest first; none if no setting helps."""
    found: list[str] = []
    plain = _micro_batch(config, memory_of(config, costs, activations, gpu_memory=gpu_memory).largest_micro_batch)
    for flags, changed in _alternatives(config):
        memory = memory_of(changed, costs, activations, gpu_memory=gpu_memory)
        fitting = _micro_batch(changed, memory.largest_micro_batch)
        if flags and fitting <= plain:  # no better than the micro batch alone
            continue
        if fitting == config.batch.micro_batch:
            found.append(flags)
        elif fitting:
            found.append(f"--batch.micro-batch {fitting} {flags}".strip())
    return tuple(found)


def _alternatives(config: RunConfig) -> Iterator[tuple[str, RunConfig]]:
    def scaled(**changes: Any) -> RunConfig:
        return dataclasses.replace(config, scale=dataclasses.replace(config.scale, **changes))

    yield "", config
    for stage in range(max(2, config.scale.zero_stage + 1), 4):
        yield f"--scale.zero-stage {stage}", scaled(zero_stage=stage)
    if config.scale.zero_stage and not config.scale.offload_optimizer:
        yield "--scale.offload-optimizer", scaled(offload_optimizer=True)
    if not config.model.checkpoint_activations:
        model = dataclasses.replace(config.model, checkpoint_activations=True)
        yield "--model.checkpoint-activations", dataclasses.replace(config, model=model)


def _micro_batch(config: RunConfig, largest: int) -> int:
    """The largest micro batch up to the run's own with which the global batch still divides; 0 if none fits."""
    batch, workers = config.batch, config.scale.num_workers
    sizes = range(min(batch.micro_batch, largest), 0, -1)
    return next((size for size in sizes if batch.global_batch % (size * workers) == 0), 0)
