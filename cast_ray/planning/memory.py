"""Whether a training step fits into a GPU, and what would make it fit."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

from cast_ray.config import RunConfig
from cast_ray.models.costs import Costs
from cast_ray.planning.activations import Activations

__all__ = ["Memory", "memory_of", "remedies"]

CONTEXT = 1.5e9
"""Bytes that CUDA, its libraries and NCCL take for themselves; assumed."""
USABLE = 0.92
"""Share of the rest that PyTorch's allocator can fill before it is too much in pieces; assumed."""
BUCKET = 500_000_000
"""Values in the buffer that DeepSpeed (0.19) takes to reduce gradients, its default `reduce_bucket_size`, whatever the
model's size; not in stage 0."""
FULL = 4
"""Bytes of a float32."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """What lies in the memory of one GPU, in bytes."""

    frozen_weights: float
    trainable_weights: float
    gradients: float
    optimizer: float
    """This GPU's share of the moments and, from ZeRO stage 1 on, of a float32 copy of the weights."""
    reduction: float
    """Buffer and float32 copy with which gradients are reduced."""
    per_clip: float
    micro_batch: int
    available: float
    """Of the GPU, less what CUDA takes and what is lost in pieces."""

    @property
    def at_rest(self) -> float:
        """Without any clip."""
        return self.frozen_weights + self.trainable_weights + self.gradients + self.optimizer + self.reduction

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
    """The memory of one GPU of a run.

    ZeRO stage 1 shares out the optimiser's state, 2 the gradients too; DeepSpeed keeps its own float32 copy of the
    weights that train from stage 1 on.

    Args:
        config: of the run; the number of workers counts.
        costs: parameters of the network.
        activations: traced in the run's precision.
        gpu_memory: bytes.
    """
    scale, trainable = config.scale, costs.trainable_parameters
    size = FULL if scale.precision == "float32" else FULL // 2
    share = 1 / scale.num_workers
    sharded = scale.zero_stage >= 1
    moments = 2 if config.optim.kind == "adamw" else 1
    return Memory(
        frozen_weights=size * (costs.parameters - trainable),
        trainable_weights=size * trainable,
        gradients=size * trainable * (share if scale.zero_stage >= 2 else 1),
        optimizer=FULL * trainable * (moments + sharded) * (share if sharded else 1),
        reduction=FULL * trainable + (size * BUCKET if sharded else 0),
        per_clip=activations.per_clip(checkpointed=config.model.checkpoint_activations),
        micro_batch=config.batch.micro_batch,
        available=(gpu_memory - CONTEXT) * USABLE,
    )


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
    yield "", config
    if config.scale.zero_stage < 2:
        yield "--scale.zero-stage 2", dataclasses.replace(config, scale=dataclasses.replace(config.scale, zero_stage=2))
    if not config.model.checkpoint_activations:
        model = dataclasses.replace(config.model, checkpoint_activations=True)
        yield "--model.checkpoint-activations", dataclasses.replace(config, model=model)


def _micro_batch(config: RunConfig, largest: int) -> int:
    """The largest micro batch up to the run's own with which the global batch still divides; 0 if none fits."""
    batch, workers = config.batch, config.scale.num_workers
    sizes = range(min(batch.micro_batch, largest), 0, -1)
    return next((size for size in sizes if batch.global_batch % (size * workers) == 0), 0)
