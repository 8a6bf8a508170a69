"""How fast and how large a model is on a CPU in several formats, and what each costs in accuracy."""

from __future__ import annotations

import dataclasses
import io
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from cast_ray.bench.apart import NoResultError, run_apart
from cast_ray.bench.inference_variant import Case, Source, Variant, load_network, measure, prepare
from cast_ray.errors import UserError

if TYPE_CHECKING:
    from cast_ray.export.load import Exported

__all__ = ["DESCRIPTION", "Inference", "bench_inference", "compared", "summary"]

DESCRIPTION = """Measure a model's inference on this machine's CPU in several formats: time, memory, change of accuracy.

Variants take turns, --rounds times, each time in a fresh process. Times are of whole batches, from decoded media to
logits; seconds of the processor suffer less from other programs. Memory is the largest resident set with weights and
libraries; only torch's variants have torch in it. With --shards every variant answers the same clips of the validation
split, one central view each. Quantisation of activations depends on the batch, and so does its accuracy.

Examples: cast-ray bench inference --model cast_base_patch16_224 --steps 3;
cast-ray bench inference --checkpoint runs/first --shards prepared/ssv2 --batch 8"""

PERCENTILE = 90
RANDOM_BATCHES = 2
"""Batches of noise where there are no clips."""


@dataclass(frozen=True, kw_only=True)
class Inference:
    """Flags of `cast-ray bench inference`."""

    model: str | None = None
    """Name of a model, with random weights; `cast-ray models` lists them."""
    checkpoint: str | None = None
    """A trained model instead: run, checkpoint or exported file."""
    shards: str | None = None
    """Prepared dataset with the classes of the checkpoint, for the accuracy."""
    clips: int = 512
    """Clips of its validation split that are used at most."""
    batch: int = 1
    """Clips in a batch."""
    variants: tuple[Variant, ...] = ("float32", "folded", "bf16", "int8", "onnx", "onnx-int8")
    """Formats; there is also compiled. One that cannot run says why, and the others still do."""
    classes: tuple[int, ...] = (174,)
    """Classes of a model with random weights: one number, or two for verbs and nouns."""
    image_size: int | None = None
    """Its frames' height and width in pixels, if not the usual."""
    frames: int | None = None
    """Its frames, if not the usual."""
    rounds: int = 3
    """Turns of every variant."""
    warm_up: int = 2
    """Batches before the clock runs, in every turn."""
    steps: int = 10
    """Timed batches in every turn."""
    threads: int | None = None
    """Threads, if not as many as there are cores."""
    time_limit: float = 900.0
    """Seconds that one turn may take."""
    json: bool = False
    """Print JSON with all figures."""

    def __post_init__(self) -> None:
        for name in ("clips", "batch", "image_size", "frames", "rounds", "steps", "threads", "time_limit"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise UserError(f"--{name.replace('_', '-')} is {value}; give a number above 0")
        if self.warm_up < 0 or not self.variants:
            raise UserError("give at least one of --variants, and --warm-up 0 or more")

    def check_source(self) -> None:
        """Raise `UserError` if there is not exactly one model; not in the constructor, as tyro starts from nothing."""
        if (self.model is None) == (self.checkpoint is None):
            raise UserError("give either --model NAME or --checkpoint PLACE")
        if self.shards is not None and self.checkpoint is None:
            raise UserError("--shards measures the accuracy of a --checkpoint; random weights have none")


def bench_inference(settings: Inference, progress: Console) -> dict[str, Any]:
    """Measure; see `DESCRIPTION`.

    Raises:
        UserError: there is no such model, or data and checkpoint do not fit together.
    """
    import torch

    from cast_ray.bench.device import describe
    from cast_ray.models.listing import class_counts

    settings.check_source()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = Source(
            exported=None,
            model=settings.model or "",
            num_classes={} if settings.model is None else class_counts(settings.classes),
            image_size=settings.image_size,
            frames=settings.frames,
        )
        with progress.status("reading the model and the clips"):
            labels = None
            if settings.checkpoint is not None:
                source = _stored(settings.checkpoint, folder, source)
                labels = _store_clips(settings, source, folder)
            network = load_network(source)
            if labels is None:
                _store_noise(network.spec, settings.batch, folder)
            costs = _costs(network)
        turns = _turns(settings, source, folder, progress)
    fields = tuple(source.num_classes)
    return {
        "model": source.model,
        "checkpoint": settings.checkpoint,
        "clips": None if labels is None else len(labels),
        "batch": settings.batch,
        "rounds": settings.rounds,
        "steps": settings.steps,
        "threads": settings.threads or torch.get_num_threads(),
        "costs": costs,
        "environment": describe(torch.device("cpu")),
        "results": compared(turns, labels, fields),
    }


def compared(
    turns: Mapping[Variant, Sequence[Mapping[str, Any]]], labels: NDArray[np.int64] | None, fields: Sequence[str]
) -> list[dict[str, Any]]:
    """The figures of every variant, and of its answers those of the first one that has any.

    Args:
        turns: what `measure` returned, or a reason why it could not.
        labels: true classes [clips, fields], if known.
        fields: label fields in their order.
    """
    results = []
    reference = next((turn["logits"] for each in turns.values() for turn in each if "logits" in turn), None)
    for variant, each in turns.items():
        reasons = [turn["reason"] for turn in each if "reason" in turn]
        if reasons:
            results.append({"variant": variant, "reason": reasons[0]})
            continue
        result: dict[str, Any] = {"variant": variant, **summary(each)}
        if labels is not None and reference is not None:
            result["accuracy"] = _accuracy(each[0]["logits"], reference, labels, fields)
        results.append(result)
    return results


def summary(turns: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Time and memory over the turns of one variant."""
    seconds, processor = (np.concatenate([turn[name] for turn in turns]) for name in ("seconds", "cpu_seconds"))
    return {
        "median_seconds": float(np.median(seconds)),
        "p90_seconds": float(np.percentile(seconds, PERCENTILE)),
        "median_cpu_seconds": float(np.median(processor)),
        "least_cpu_seconds": float(processor.min()),
        "first_seconds": statistics.median(turn["first_seconds"] for turn in turns),
        "memory_at_rest": max(turn["memory_at_rest"] for turn in turns),
        "peak_memory": max(turn["peak_memory"] for turn in turns),
    }


def _accuracy(
    logits: Mapping[str, NDArray[Any]],
    reference: Mapping[str, NDArray[Any]],
    labels: NDArray[np.int64],
    fields: Sequence[str],
) -> dict[str, Any]:
    """Top-1 of each field, its change against the reference, and the share of clips with the reference's answer."""
    figures = {}
    for column, field in enumerate(fields):
        answers, others = (scores[f"logits_{field}"].argmax(1) for scores in (logits, reference))
        right, before = (answers == labels[:, column]).mean(), (others == labels[:, column]).mean()
        figures[field] = {
            "top1": float(right),
            "change": float(right - before),
            "same_answer": float((answers == others).mean()),
        }
    return figures


def _turns(settings: Inference, source: Source, folder: Path, progress: Console) -> dict[Variant, list[dict[str, Any]]]:
    """What every variant measured, in turns; one that failed is not tried again."""
    turns: dict[Variant, list[dict[str, Any]]] = {variant: [] for variant in settings.variants}
    case = Case(
        variant="float32",
        source=source,
        folder=folder,
        batch=settings.batch,
        warm_up=settings.warm_up,
        steps=settings.steps,
        threads=settings.threads,
        answers=False,
    )
    for number in range(settings.rounds):
        for variant, done in turns.items():
            if any("reason" in turn for turn in done):
                continue
            one = dataclasses.replace(case, variant=variant, answers=settings.shards is not None and number == 0)
            try:
                with progress.status(f"{variant}, turn {number + 1} of {settings.rounds} ..."):
                    if variant.startswith("onnx") and number == 0:
                        run_apart(prepare, one, time_limit=settings.time_limit)
                    done.append(run_apart(measure, one, time_limit=settings.time_limit))
            except NoResultError as error:
                done.append({"reason": str(error)})
    return turns


def _stored(checkpoint: str, folder: Path, source: Source) -> Source:
    """The trained model as a file that every process can read."""
    from cast_ray.export.merge import export
    from cast_ray.weights.moved import MovedWeights

    path = str(folder / "model.safetensors")
    file = export(checkpoint, path, moved=MovedWeights(), console=Console(file=io.StringIO()))
    contents = file.contents
    return dataclasses.replace(
        source, exported=path, model=contents.model.name, num_classes=contents.label_map.num_classes
    )


def _store_clips(settings: Inference, source: Source, folder: Path) -> NDArray[np.int64] | None:
    """Decode the clips into `<medium>.npy`; returns their labels [clips, fields], or None without a dataset."""
    from cast_ray.data.loader import ClipLoader, wanted_by
    from cast_ray.data.manifest import VALIDATION
    from cast_ray.data.shards import open_complete
    from cast_ray.data.views import CentreView
    from cast_ray.export.load import load_exported
    from cast_ray.export.serving import media_of

    if settings.shards is None:
        return None
    dataset = open_complete(settings.shards)
    exported: Exported = load_exported(str(source.exported))
    if exported.label_map.fingerprint != dataset.label_map.fingerprint:
        raise UserError(
            f"--shards {settings.shards} has the label map {dataset.label_map.fingerprint}, the checkpoint "
            f"{exported.label_map.fingerprint}; give data with the classes of the checkpoint"
        )
    spec = exported.network.spec
    loader = ClipLoader(
        root=dataset.uri,
        stored=dataset.format,
        view=CentreView(sampling=exported.contents.views.sampling),
        columns=(),
        wanted=wanted_by(spec),
    )
    loaded = loader(dataset.split(VALIDATION).slice(0, settings.clips))
    valid = loaded["valid"]
    if valid.sum() < settings.batch:
        raise UserError(f"--shards {settings.shards} has {valid.sum()} readable clips, fewer than --batch")
    for name in media_of(spec):
        np.save(folder / f"{name}.npy", loaded[name][valid])
    return loaded["labels"][valid]


def _store_noise(spec: Any, batch: int, folder: Path) -> None:
    from cast_ray.export.serving import random_media

    for name, medium in random_media(spec, RANDOM_BATCHES * batch).items():
        np.save(folder / f"{name}.npy", medium.numpy())


def _costs(network: Any) -> dict[str, dict[str, int]]:
    """Parameters and multiply-adds of one view, as trained and folded."""
    from torch.utils.flop_counter import FlopCounterMode

    from cast_ray.export.fold import fold
    from cast_ray.export.serving import Serving, random_media
    from cast_ray.models.costs import FLOPS_PER_MULTIPLY_ADD

    costs = {}
    for name, each in (("float32", network), ("folded", fold(network))):
        with FlopCounterMode(display=False) as counter:
            Serving(each)(**random_media(network.spec, 1))
        costs[name] = {
            "parameters": sum(parameter.numel() for parameter in each.parameters()),
            "multiply_adds": counter.get_total_flops() // FLOPS_PER_MULTIPLY_ADD,
        }
    return costs
