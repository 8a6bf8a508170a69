"""How fast clips come from disk to the model's device: our pipeline beside two DataLoaders, in one run."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from cast_ray.data.decode import Decoder
from cast_ray.errors import UserError

__all__ = ["DESCRIPTION", "Data", "bench_data"]

DESCRIPTION = """Measure the input pipeline from disk to uint8 or normalised clips; prints JSON.

Paths: dataloader-pil is torch's DataLoader over mp4 files with decord, timm's RandAugment on PIL images at full
resolution and float normalisation, as the papers' code does it; dataloader-tensor is the DataLoader with torchcodec
(or decord) and torchvision's tensor transforms; same-cpu is our pipeline doing all of that with the same mp4 files;
short-gop and jpeg are our pipeline over shards of those formats, where colours are varied on the training device. views
is the multi-view test, each clip decoded once, against decoding it for every view.

Every path has the same number of worker processes, runs in a process of its own, and takes turns with the others as
often as --repeats says. ratio compares with dataloader-pil in the same run: clips_per_second by the clock,
processor_seconds_per_clip by processor time, which other programs on the machine disturb less. Examples:
cast-ray bench data --clips FOLDER; cast-ray bench data --paths dataloader-pil jpeg --kinds kinetics --repeats 3."""

PathName = Literal["dataloader-pil", "dataloader-tensor", "same-cpu", "short-gop", "jpeg", "views"]
KindName = Literal["kinetics", "something"]

BASELINE = "dataloader-pil"
OWN_CLIPS = Path(__file__).parents[2] / "tests" / "clips"
"""Of a source tree; an installed package has none."""


@dataclass(frozen=True, kw_only=True)
class Data:
    """Flags of `cast-ray bench data`."""

    clips: Path | None = None
    """Folder with videos of at least 10 s to measure with; None: those of the source tree's tests."""
    kinds: tuple[KindName, ...] = ("kinetics", "something")
    """What they are made into: 340x256 H.264 of 10 s at their own frame rate, or of 3 s at 12 frames per second."""
    paths: tuple[PathName, ...] = ("dataloader-pil", "dataloader-tensor", "same-cpu", "short-gop", "jpeg", "views")
    """What to measure."""
    clips_per_path: int = 64
    """Different files and shard rows; they are gone through over and over."""
    seconds: float = 8.0
    """Length of a measurement, without start-up."""
    repeats: int = 1
    """Times that every path has its turn."""
    workers: int = 2
    """Worker processes of every path; as many as there are free cores."""
    batch: int = 8
    """Clips in a micro batch."""
    clips_per_task: int = 32
    """Clips that one decode task of ours handles."""
    decoder: Decoder | None = None
    """What decodes video in our pipeline, if not what training takes by itself."""
    time_limit: float = 300.0
    """Seconds that one measurement may take, start-up included."""

    def __post_init__(self) -> None:
        for name in ("clips_per_path", "seconds", "repeats", "workers", "batch", "clips_per_task", "time_limit"):
            value = getattr(self, name)
            if value <= 0:
                raise UserError(f"--{name.replace('_', '-')} is {value}; give a number above 0")
        for name in ("clips_per_path", "clips_per_task"):  # an incomplete batch would be padded
            if getattr(self, name) % self.batch:
                raise UserError(
                    f"--{name.replace('_', '-')} is {getattr(self, name)} and --batch {self.batch}; "
                    "give a multiple of the batch"
                )


def bench_data(settings: Data, progress: Console) -> dict[str, Any]:
    """Measure all paths with all kinds of clips.

    Raises:
        UserError: there are no clips to measure with.
    """
    import torch

    from cast_ray.bench.data_clips import KINDS, make_inputs, videos_in
    from cast_ray.bench.device import describe

    videos = videos_in(_source(settings))
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="cast_ray_bench_") as folder:
        for kind in settings.kinds:
            with progress.status(f"{kind}: making clips ..."):
                inputs = make_inputs(videos, Path(folder) / kind, KINDS[kind], settings.clips_per_path)
            turns: dict[str, list[dict[str, Any]]] = {path: [] for path in settings.paths}
            for _ in range(settings.repeats):
                for path in settings.paths:
                    turns[path].append(_measure(settings, kind, path, inputs.files, inputs.datasets, progress))
            results[kind] = {"clips": inputs.described, "paths": compared(turns, settings.workers)}
    return {
        "workers": settings.workers,
        "batch": settings.batch,
        "clips_per_task": settings.clips_per_task,
        "decoder": settings.decoder,
        "seconds": settings.seconds,
        "peak_memory_is": "largest sum of the proportional set sizes of all processes, object store included, in bytes",
        "environment": describe(torch.device("cpu")),
        "kinds": results,
    }


def _source(settings: Data) -> Path:
    if settings.clips is not None:
        return settings.clips
    if not OWN_CLIPS.is_dir():
        raise UserError("there are no clips to measure with; give --clips FOLDER with some videos of at least 10 s")
    return OWN_CLIPS


def _measure(
    settings: Data, kind: str, path: str, files: tuple[str, ...], datasets: Mapping[str, str], progress: Console
) -> dict[str, Any]:
    from cast_ray.bench.apart import NoResultError, run_apart
    from cast_ray.bench.data_paths import DataJob, measure_path
    from cast_ray.bench.data_views import measure_views

    job = DataJob(
        path=path,
        files=files,
        datasets=datasets,
        decoder=settings.decoder,
        workers=settings.workers,
        batch=settings.batch,
        clips_per_task=settings.clips_per_task,
        seconds=settings.seconds,
    )
    started = time.monotonic()
    try:
        with progress.status(f"{kind}, {path} ..."):
            result = run_apart(measure_views if path == "views" else measure_path, job, time_limit=settings.time_limit)
    except NoResultError as error:
        result = {"reason": str(error)}
    told = result.get("reason", "done")
    if "clips_per_second" in result:
        used = 1000 * result["processor_seconds_per_clip"]
        told = f"{result['clips_per_second']:.3g} clips/s, {used:.3g} ms of processor time per clip"
    took = time.monotonic() - started
    progress.print(f"{kind}, {path}: {told} ({took:.0f} s)", soft_wrap=True, highlight=False, markup=False)
    return result


def compared(turns: Mapping[str, list[dict[str, Any]]], workers: int) -> dict[str, Any]:
    """Per path the turn with the best speed, the median speed, and how it compares with the first DataLoader.

    The best, because other programs can only slow it down.
    """
    paths = {}
    for path, results in turns.items():
        done = [result for result in results if "reason" not in result]
        paths[path] = _best(done, workers) if done else results[0]
    baseline = paths.get(BASELINE, {})
    if "clips_per_second" in baseline:
        for result in paths.values():
            if "clips_per_second" in result:
                result["ratio"] = {
                    "clips_per_second": result["clips_per_second"] / baseline["clips_per_second"],
                    "processor_seconds_per_clip": baseline["processor_seconds_per_clip"]
                    / result["processor_seconds_per_clip"],
                }
    return paths


def _best(results: list[dict[str, Any]], workers: int) -> dict[str, Any]:
    if "clips_per_second" not in results[0]:  # views: the best of each measurement already
        return results[-1]
    best = max(results, key=lambda result: result["clips_per_second"])
    return best | {
        "clips_per_second_per_worker": best["clips_per_second"] / workers,
        "median_clips_per_second": statistics.median(result["clips_per_second"] for result in results),
        "processor_seconds_per_clip": min(result["processor_seconds_per_clip"] for result in results),
    }
