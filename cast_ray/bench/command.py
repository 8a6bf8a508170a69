"""The command `cast-ray bench`: measurements on stdout, progress on stderr."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import tyro
from rich.console import Console

from cast_ray.command_line import parse, subcommand
from cast_ray.errors import UserError

__all__ = ["main"]

USAGE = """usage: cast-ray bench COMMAND [FLAGS]

  model   speed and memory of a model's inference and training step, beside what the device can do
  data    speed and memory of the input pipeline, beside PyTorch's DataLoader over video files
  train   speed of the whole stack, beside a bare torch loop over batches in memory
  inference  time, memory and accuracy of a model on a CPU in several formats: bf16, int8, ONNX

`cast-ray bench COMMAND --help` explains one command.
"""

DESCRIPTION = """Measure inference and training steps of a model; prints JSON.

Examples: cast-ray bench model --model cast_tiny --batch 16 --device cpu;
a table by batch size on a GPU: cast-ray bench model --model cast_base_patch16_224 --device cuda --batch 8 16 32 64
--variants eager-bf16 compiled-bf16.

achieved_fraction is the multiply-adds that are needed (recomputation not counted) per second, divided by the rate of a
large matrix product that was measured in the same precision. Speeds are those of the best timed pass, because other
programs can only slow it down; the median is given beside it."""

Variant = Literal["eager-float32", "compiled-float32", "eager-bf16", "compiled-bf16"]


@dataclass(frozen=True, kw_only=True)
class Model:
    """Flags of `cast-ray bench model`."""

    model: str
    """Name of the model; `cast-ray models` lists them."""
    batch: tuple[int, ...] = (1,)
    """Clips in a batch; several numbers are measured one after the other."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where to run."""
    variants: tuple[Variant, ...] = ("eager-float32", "compiled-float32", "eager-bf16", "compiled-bf16")
    """Ways to run; one that cannot run says why, and the others still do."""
    classes: tuple[int, ...] = (174,)
    """Classes of the task: one number, or two for verbs and nouns."""
    image_size: int | None = None
    """Height and width of the frames in pixels, if not the model's usual."""
    frames: int | None = None
    """Frames of a clip, if not the model's usual."""
    experts: Literal["usual", "frozen", "trained"] = "usual"
    """Whether the experts' own weights train; usual: only where no expert has adapters."""
    checkpoint_activations: bool = False
    """Keep only the tokens between blocks for the backward pass and compute the rest again."""
    warm_up: int = 2
    """Passes before the clock runs; the first one compiles."""
    steps: int = 5
    """Timed passes."""
    threads: int | None = None
    """Threads of PyTorch on the CPU, if not its default."""
    time_limit: float = 900.0
    """Seconds that one variant at one batch size may take, compilation included."""

    def __post_init__(self) -> None:
        for name in ("image_size", "frames", "steps", "threads", "time_limit"):
            value = getattr(self, name)
            if value is not None and value is not tyro.MISSING and value <= 0:
                raise UserError(f"--{name.replace('_', '-')} is {value}; give a number above 0")
        if not self.batch or min(self.batch) < 1 or self.warm_up < 0:
            raise UserError(
                f"--batch is {' '.join(map(str, self.batch))} and --warm-up {self.warm_up}; "
                "give batches of at least 1 clip and at least 0 passes"
            )


def main(arguments: list[str]) -> int:
    """Run `cast-ray bench ARGUMENTS`; returns the exit status, 1 if nothing could be measured."""
    commands = {"model": _model, "data": _data, "train": _train, "inference": _inference}
    measure = subcommand("bench", arguments, commands, USAGE)
    if measure is None:
        return 0
    return 0 if measure(arguments[1:], Console(stderr=True)) else 1


def _print_json(report: Mapping[str, Any]) -> None:
    print(json.dumps(report, indent=2))  # noqa: T201


def _model(arguments: list[str], progress: Console) -> bool:
    """Print the report; whether any variant could run."""
    settings = parse(
        Model,
        Model(model=tyro.MISSING),
        description=DESCRIPTION,
        arguments=arguments,
        program="cast-ray bench model",
    )
    report = _bench_model(settings, progress)
    _print_json(report)
    return any("reason" not in result for result in report["results"])


def _data(arguments: list[str], progress: Console) -> bool:
    """Print the report; whether any path could run."""
    from cast_ray.bench.data import DESCRIPTION, Data, bench_data

    settings = parse(Data, Data(), description=DESCRIPTION, arguments=arguments, program="cast-ray bench data")
    report = bench_data(settings, progress)
    paths = [path for kind in report["kinds"].values() for path in kind["paths"].values()]
    _print_json(report)
    return any("reason" not in path for path in paths)


def _train(arguments: list[str], progress: Console) -> bool:
    """Print the report; whether everything could run."""
    from cast_ray.bench.apart import NoResultError
    from cast_ray.bench.train import DESCRIPTION, Train, bench_train
    from cast_ray.bench.train_show import show_train

    settings = parse(Train, Train(), description=DESCRIPTION, arguments=arguments, program="cast-ray bench train")
    try:
        report = bench_train(settings, progress)
    except NoResultError as error:
        progress.print(str(error), soft_wrap=True, highlight=False, markup=False)
        return False
    if settings.json:
        _print_json(report)
    else:
        show_train(report, Console())
    return True


def _inference(arguments: list[str], progress: Console) -> bool:
    """Print the report; whether any variant could run."""
    from cast_ray.bench.inference import DESCRIPTION, Inference, bench_inference
    from cast_ray.bench.inference_show import show_inference

    program = "cast-ray bench inference"
    settings = parse(Inference, Inference(), description=DESCRIPTION, arguments=arguments, program=program)
    report = bench_inference(settings, progress)
    if settings.json:
        _print_json(report)
    else:
        show_inference(report, Console())
    return any("reason" not in result for result in report["results"])


def _bench_model(settings: Model, progress: Console) -> dict[str, Any]:
    import torch

    from cast_ray.bench.device import PEAK_MEMORY, describe
    from cast_ray.bench.model import spec_for
    from cast_ray.models.costs import count_costs, count_step
    from cast_ray.models.listing import class_counts

    if settings.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device is cuda, but PyTorch finds no CUDA device here; use --device cpu")
    num_classes = class_counts(settings.classes)
    spec = spec_for(settings.model, image_size=settings.image_size, frames=settings.frames)
    train_experts = spec.trains_whole if settings.experts == "usual" else settings.experts == "trained"
    costs = count_costs(spec, num_classes, train_experts=train_experts)
    needed = {
        "inference": costs.multiply_adds,
        "training": count_step(spec, num_classes, train_experts=train_experts),
    }
    results = _measure_all(settings, num_classes, train_experts, progress)
    rates = _best_rates(results)
    for result in results:
        for phase, multiply_adds in needed.items():
            if phase in result:
                done = multiply_adds * result[phase]["clips_per_second"]
                result[phase]["achieved_fraction"] = done / rates[result["variant"].partition("-")[2]]
    return {
        "model": settings.model,
        "num_classes": num_classes,
        "image_size": spec.video.image_size,
        "frames": spec.video.num_frames,
        "train_experts": train_experts,
        "checkpoint_activations": settings.checkpoint_activations,
        "parameters": costs.parameters,
        "trainable_parameters": costs.trainable_parameters,
        "multiply_adds_per_clip": needed,
        "warm_up": settings.warm_up,
        "steps": settings.steps,
        "peak_memory_is": PEAK_MEMORY[settings.device],
        "environment": describe(torch.device(settings.device)),
        "matmul_multiply_adds_per_second": rates,
        "results": results,
    }


def _measure_all(
    settings: Model, num_classes: Mapping[str, int], train_experts: bool, progress: Console
) -> list[dict[str, Any]]:
    from cast_ray.bench.apart import NoResultError, run_apart
    from cast_ray.bench.model import Job, measure

    results: list[dict[str, Any]] = []
    for batch in settings.batch:
        for variant in settings.variants:
            job = Job(
                model=settings.model,
                variant=variant,
                batch=batch,
                device=settings.device,
                num_classes=dict(num_classes),
                image_size=settings.image_size,
                frames=settings.frames,
                train_experts=train_experts,
                checkpoint_activations=settings.checkpoint_activations,
                warm_up=settings.warm_up,
                steps=settings.steps,
                threads=settings.threads,
            )
            label, started = {"batch": batch, "variant": variant}, time.monotonic()
            try:
                with progress.status(f"{variant}, batch {batch} ..."):
                    result = label | run_apart(measure, job, time_limit=settings.time_limit)
            except NoResultError as error:
                result = label | {"reason": str(error)}
            results.append(result)
            _report(result, time.monotonic() - started, progress)
    return results


def _report(result: Mapping[str, Any], seconds: float, progress: Console) -> None:
    parts = [f"{result['variant']}, batch {result['batch']}:"]
    for phase in ("inference", "training"):
        if phase in result:
            speed, memory = result[phase]["clips_per_second"], result[phase]["peak_memory"]
            parts.append(f"{phase} {speed:.3g} clips/s, {memory / 1e9:.2f} GB;")
    parts.append(f"{result.get('reason', '')} ({seconds:.0f} s)".strip())
    progress.print(" ".join(parts), soft_wrap=True, highlight=False, markup=False)


def _best_rates(results: list[dict[str, Any]]) -> dict[str, float]:
    """The device's rate by precision: the best of what the variants measured, as disturbances only slow it down."""
    rates: dict[str, float] = {}
    for result in results:
        if "reason" not in result:
            precision = result["variant"].partition("-")[2]
            rates[precision] = max(rates.get(precision, 0.0), result.pop("matmul_multiply_adds_per_second"))
    return rates
