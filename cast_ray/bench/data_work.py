"""What processes do and need: bare loops with the seconds of their stages, steady speed, processor time, memory."""

from __future__ import annotations

import cProfile
import multiprocessing
import os
import pstats
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any, Protocol

__all__ = ["Work", "bare_loop", "peak_memory", "steady"]

PROFILED_SECONDS = 2.0
MEMORY_EVERY_S = 1.0
BARRIER_S = 120.0


class Work(Protocol):
    """The work of a path without what brings it from process to process; pickled into every worker."""

    def __call__(self, number: int) -> int:
        """Do piece `number` of the work; returns the clips that were done."""

    def stages(self) -> Mapping[str, tuple[Callable[..., Any], ...]]:
        """The Python functions, none below another, in which each stage's time is spent."""


def steady(batches: Iterable[int], *, wave: int, seconds: float, root: int | None = None) -> dict[str, float]:
    """Speed of a stream once it flows, and the time that its first batch took.

    Workers finish about together, wave after wave. The clock runs from the end of the first wave to that of another, so
    that neither the start nor clips in the making count.

    Args:
        batches: the clips of each batch, as they arrive.
        wave: clips that all workers together make at a time.
        seconds: to measure, about.
        root: the process below which all work is done; None: this one.
    """
    root = os.getpid() if root is None else root
    begun = time.perf_counter()
    clips, first, start = 0, 0.0, (0, 0.0, 0.0)
    for count in batches:
        now = time.perf_counter()
        first = first or now - begun
        clips += count
        if clips % wave == 0 and not start[0]:
            start = clips, now, processor_seconds(root)
        elif clips % wave == 0 and now - start[1] >= seconds:
            break
    else:
        raise RuntimeError(f"the stream ended after {clips} clips, before {seconds:g} s were over")
    done = clips - start[0]
    return {
        "clips_per_second": done / (now - start[1]),
        "processor_seconds_per_clip": (processor_seconds(root) - start[2]) / done,
        "first_batch_seconds": first,
    }


def bare_loop(work: Work, *, workers: int, seconds: float) -> dict[str, Any]:
    """Speed, stages and bytes of `work` in a loop in each of some processes, which share nothing.

    The stages are measured afterwards, as the profiler costs time. What no stage claims is `other`.
    """
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(workers), context.SimpleQueue()
    processes = [
        context.Process(target=_loop, args=(work, worker, seconds, barrier, results), daemon=True)
        for worker in range(workers)
    ]
    for process in processes:
        process.start()
    each = [results.get() for _ in processes]
    for process in processes:
        process.join()

    def mean(name: str) -> float:
        return sum(result[name] for result in each) / workers

    return {
        "clips_per_second": mean("clips_per_second") * workers,
        "processor_seconds_per_clip": mean("processor_seconds_per_clip"),
        "bytes_read_per_clip": mean("bytes_read_per_clip"),
        "seconds_per_clip": {
            stage: sum(result["stages"][stage] for result in each) / workers for stage in each[0]["stages"]
        },
    }


def _loop(work: Work, worker: int, seconds: float, barrier: Barrier, results: Any) -> None:
    import torch

    torch.set_num_threads(1)
    numbers = iter(range(worker, 2**60, barrier.parties))
    _until(work, numbers, 0.0)  # imports, and what is cached
    barrier.wait(BARRIER_S)
    bytes_before, processor_before = _bytes_read(), time.process_time()
    clips, took = _until(work, numbers, seconds)
    result: dict[str, Any] = {
        "clips_per_second": clips / took,
        "processor_seconds_per_clip": (time.process_time() - processor_before) / clips,
        "bytes_read_per_clip": (_bytes_read() - bytes_before) / clips,
    }
    profile = cProfile.Profile()
    barrier.wait(BARRIER_S)
    profile.enable()
    clips, took = _until(work, numbers, PROFILED_SECONDS)
    profile.disable()
    results.put(result | {"stages": _stages(profile, work, clips, took)})


def _until(work: Work, numbers: Iterator[int], seconds: float) -> tuple[int, float]:
    """Clips done in about some seconds, at least one piece of work, and the seconds that it took."""
    started, clips = time.perf_counter(), 0
    while True:
        clips += work(next(numbers))
        took = time.perf_counter() - started
        if took >= seconds:
            return clips, took


def _stages(profile: cProfile.Profile, work: Work, clips: int, took: float) -> dict[str, float]:
    entries: dict[Any, Any] = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    stages = {}
    for stage, functions in work.stages().items():
        codes = [function.__code__ for function in functions]
        keys = [(code.co_filename, code.co_firstlineno, code.co_name) for code in codes]
        stages[stage] = sum(entries[key][3] for key in keys if key in entries) / clips
    return stages | {"other": took / clips - sum(stages.values())}


def _bytes_read() -> int:
    """Bytes that this process has read from files, whether or not they came from the page cache."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("rchar:"))


@contextmanager
def peak_memory(peak: dict[str, Any]) -> Iterator[None]:
    """Watch the memory of this process and all below it, and put the largest sum into `peak["peak_memory"]`.

    Proportional set sizes: memory that processes share, as the object store is, counts once.
    """
    done = threading.Event()

    def watch() -> None:
        while True:
            peak["peak_memory"] = max(peak.get("peak_memory", 0), sum(map(_memory, _family(os.getpid()))))
            if done.wait(MEMORY_EVERY_S):
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def processor_seconds(root: int) -> float:
    """Processor time of a process and of all that it has started, directly or not."""
    ticks = sum(sum(map(int, fields[11:15])) for fields in _family(root).values())
    return ticks / os.sysconf("SC_CLK_TCK")


def _family(root: int) -> dict[int, list[str]]:
    """What /proc/PID/stat says, from the state on, of a process and all below it."""
    everything = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            everything[int(folder.name)] = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has just ended
    family, size = {root}, 0
    while len(family) > size:
        size = len(family)
        family |= {process for process, fields in everything.items() if int(fields[1]) in family}
    return {process: everything[process] for process in family if process in everything}


def _memory(process: int) -> int:
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)
