"""Which clip comes when: a pure function of seed, epoch, step and position.

One epoch is a permutation of the clips, each `repeats` times in a row (repeated augmentation, arXiv 1901.09335), cut
into global batches; a global batch is cut into micro batches of consecutive clips. Micro batch m of a step goes to rank
m % world_size as its accumulation m // world_size. The cut does not know the world size, so runs with other numbers of
workers see the same micro batches in the same order as long as the global batch and the micro batch keep their sizes;
where the workers do not divide them evenly, the last ones of a step get micro batches of padding.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cast_ray.data.randomness import rng_for

__all__ = ["PADDING", "EpochPlan", "MicroBatch", "Position"]

PADDING = -1
"""Stands for "no clip", at the end of an epoch and where workers do not divide a step's micro batches evenly, so that
all ranks have equally many batches."""


@dataclass(frozen=True, kw_only=True)
class Position:
    """The next optimiser step of a run: `step` counts within `epoch`; both start at 0."""

    epoch: int = 0
    step: int = 0


class MicroBatch(NamedTuple):
    """One micro batch with its place in the epoch."""

    step: int
    accumulation: int
    rank: int
    clips: NDArray[np.int64]
    """Clip indices, [micro_batch]; PADDING where there is no clip."""
    views: NDArray[np.int64]
    """Which of its clip's repetitions each one is, [micro_batch], from 0; 0 where there is no clip."""


@dataclass(frozen=True, kw_only=True)
class EpochPlan:
    """The order of all epochs of a run."""

    num_clips: int
    seed: int
    micro_batch: int
    """Clips per worker and pass."""
    micro_batches_per_step: int
    """Micro batches of a global batch, which the workers divide among themselves."""
    world_size: int
    """Training workers."""
    shuffle: bool = True
    """False: clips in their own order in every epoch, as for validation."""
    repeats: int = 1
    """Times that each clip comes per epoch, one after the other."""

    def __post_init__(self) -> None:
        for name in ("num_clips", "micro_batch", "micro_batches_per_step", "world_size", "repeats"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, must be at least 1")

    @property
    def global_batch(self) -> int:
        """Clips per step over all workers."""
        return self.micro_batch * self.micro_batches_per_step

    @property
    def accumulation(self) -> int:
        """Micro batches per worker and step, those of padding too."""
        return -(-self.micro_batches_per_step // self.world_size)

    @property
    def loss_weight(self) -> float:
        """Factor on every micro batch's loss, so that the mean over accumulation and workers, which is taken over
        padding too, is the mean over the micro batches; 1 where the workers divide them evenly."""
        return self.accumulation * self.world_size / self.micro_batches_per_step

    @property
    def rows_per_epoch(self) -> int:
        """Clips of an epoch, repeated ones counted each time."""
        return self.num_clips * self.repeats

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser updates per epoch; the last one may hold padding."""
        return -(-self.rows_per_epoch // self.global_batch)

    def clips(self, epoch: int, step: int, rank: int) -> NDArray[np.int64]:
        """Clip indices of one worker in one step, [accumulation, micro_batch]; PADDING where there is no clip."""
        if not 0 <= rank < self.world_size:
            raise ValueError(f"rank is {rank}, must be in [0, {self.world_size})")
        return self._step(epoch, step)[0][:, rank]

    def micro_batches(self, epoch: int, start_step: int = 0) -> Iterator[MicroBatch]:
        """All micro batches from `start_step` to the end of the epoch, in the sequence in which they are streamed."""
        for step in range(start_step, self.steps_per_epoch):
            clips, views = self._step(epoch, step)
            for accumulation in range(self.accumulation):
                for rank in range(self.world_size):
                    place = accumulation, rank
                    yield MicroBatch(step, accumulation, rank, clips[place], views[place])

    def _step(self, epoch: int, step: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Clips and views of one global batch with its padding, both [accumulation, world_size, micro_batch]."""
        if not 0 <= step < self.steps_per_epoch:
            raise ValueError(f"step is {step}, must be in [0, {self.steps_per_epoch})")
        order = _permutation(self.num_clips, self.seed, epoch) if self.shuffle else np.arange(self.num_clips)
        shape = self.accumulation, self.world_size, self.micro_batch
        places = np.arange(math.prod(shape))
        rows = step * self.global_batch + places
        missing = (rows >= self.rows_per_epoch) | (places >= self.global_batch)
        clips = np.where(missing, PADDING, order[np.minimum(rows // self.repeats, self.num_clips - 1)])
        views = np.where(missing, 0, rows % self.repeats)
        return clips.reshape(shape), views.reshape(shape)


@functools.lru_cache(maxsize=4)
def _permutation(num_clips: int, seed: int, epoch: int) -> NDArray[np.int64]:
    order = rng_for(seed, epoch, "all", "order").permutation(num_clips)
    order.setflags(write=False)  # the cache hands out the array itself
    return order
