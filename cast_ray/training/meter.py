"""What is measured between two progress lines: loss, clips per second, share of time spent waiting for data."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psutil
import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["Interval", "Meter", "WorkerInterval"]


@dataclass(frozen=True, kw_only=True)
class WorkerInterval:
    """Figures of one interval of one worker."""

    clips_per_s: float
    data_wait: float
    """Share of its time spent waiting for data, 0 to 1."""
    memory: int
    """Resident memory at the end, in bytes."""
    gpu_memory: int
    """Most memory that it has held on its GPU since it was started, in bytes; 0 on a CPU."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """Figures of one interval over all workers."""

    loss: float
    """Mean over the clips that could be read."""
    clips_per_s: float
    data_wait: float
    """Share of the workers' time spent waiting for data, 0 to 1."""
    unreadable: int
    """Clips that could not be read."""
    seconds: float
    workers: tuple[WorkerInterval, ...]
    """By rank."""


class Meter:
    """Sums of one worker since the last `reduce`."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._loss: Tensor
        self._clips: int
        self._unreadable: int
        self._reset()

    def timed(self, batches: Iterator[Any]) -> Iterator[Any]:
        """The same batches, with the time spent waiting for each measured."""
        while True:
            before = time.perf_counter()
            batch = next(batches, None)
            self._waited += time.perf_counter() - before
            if batch is None:
                return
            yield batch

    def add(self, loss: Tensor, *, rows: int, clips: int, unreadable: int) -> None:
        """Count one micro batch. The loss stays on the device: reading it here would stall a GPU.

        Args:
            loss: mean over the rows, to which padding and unreadable clips add nothing.
            rows: size of the micro batch.
            clips: rows that are not padding.
            unreadable: clips among them that could not be read.
        """
        self._loss = self._loss + loss.detach().double() * rows
        self._clips += clips
        self._unreadable += unreadable

    def reduce(self) -> Interval:
        """Add up over all workers and start anew. A collective: every worker calls it."""
        seconds = time.perf_counter() - self._started
        counts = [self._clips, self._unreadable, self._waited, seconds, psutil.Process().memory_info().rss]
        counts.append(torch.cuda.max_memory_reserved(self._device) if self._device.type == "cuda" else 0)
        mine = torch.cat([self._loss.reshape(1), torch.tensor(counts, dtype=torch.float64, device=self._device)])
        self._reset()
        everyone = [mine]
        if dist.is_initialized():
            everyone = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
            dist.all_gather(everyone, mine)
        workers = [worker.tolist() for worker in everyone]
        loss, clips, unreadable, waited, total_seconds, *_ = (sum(values) for values in zip(*workers, strict=True))
        return Interval(
            loss=loss / max(clips - unreadable, 1),
            clips_per_s=clips * len(workers) / total_seconds,
            data_wait=waited / total_seconds,
            unreadable=round(unreadable),
            seconds=total_seconds / len(workers),
            workers=tuple(
                WorkerInterval(
                    clips_per_s=clips / seconds,
                    data_wait=waited / seconds,
                    memory=round(memory),
                    gpu_memory=round(gpu_memory),
                )
                for _, clips, _, waited, seconds, memory, gpu_memory in workers
            ),
        )

    def _reset(self) -> None:
        self._started = time.perf_counter()
        self._waited = 0.0
        self._loss = torch.zeros((), dtype=torch.float64, device=self._device)
        self._clips = self._unreadable = 0
