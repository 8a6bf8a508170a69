"""What share of a bare torch loop's speed our whole stack keeps, and which of its parts cost how much."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console

from cast_ray.errors import UserError

if TYPE_CHECKING:
    from cast_ray.bench.train_case import Case

__all__ = ["DESCRIPTION", "Train", "bench_train", "compared"]

DESCRIPTION = """Measure what our stack adds to a bare torch loop that trains the same model on the same batches.

(a) the bare loop: plain torch, AdamW, DistributedDataParallel for several workers, all batches in memory. (b) the whole
stack as a job runs it: clips decoded by Ray Data, Ray Train, DeepSpeed, checkpoints in the background, logging. Same
weights, clips, precision, threads and processes; the clips are rendered, and not changed at random.

(a) and (b) take turns, --repeats times. In the process of (a) the parts that need no Ray are added one by one, in turns
too: DeepSpeed, inputs from uint8 frames, the loop, a row of the history, a checkpoint. What rows and checkpoints cost
is counted as often as (b) has them. Of the rest, the training workers' waiting for data is counted as data, and what
remains as Ray: its processes and the decoders beside the worker. Medians of all turns, start-up apart; the shares of
processor time are the training workers' alone, and other programs disturb them less.

Examples, on a CPU with one core for the worker and one for the decoders, and on a GPU:
cast-ray bench train;
cast-ray bench train --model cast_base_patch16_224 --image-size 224 --frames 16 --batch 6 --device cuda --threads 4
--precision bf16 --json > train.json, for cast-ray plan --rates train.json"""


@dataclass(frozen=True, kw_only=True)
class Train:
    """Flags of `cast-ray bench train`."""

    model: str = "cast_tiny"
    """Name of the model; `cast-ray models` lists them. Its experts are frozen if they have adapters."""
    image_size: int | None = 64
    """Height and width of the frames in pixels; None: the model's usual."""
    frames: int | None = 16
    """Frames of a clip; None: the model's usual."""
    batch: int = 16
    """Clips in a worker's forward pass."""
    accumulation: int = 1
    """Forward passes of a worker per update."""
    workers: int = 1
    """Training processes; one per GPU."""
    threads: int = 1
    """CPU cores of a worker; on a CPU also PyTorch's threads."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where to train."""
    precision: Literal["float32", "bf16"] = "float32"
    """Number format of the forward and backward pass."""
    zero_stage: Literal[0, 1, 2, 3] = 1
    """DeepSpeed ZeRO stage of the stack."""
    steps: int = 10
    """Updates between two rows of the history, and of one timed turn of each part."""
    epochs: int = 3
    """Times `steps` updates of the whole stack, after as many more that are not counted."""
    checkpoint_every: int = 25
    """Updates between two checkpoints of the whole stack; in real runs hundreds."""
    rounds: int = 1
    """Turns of every part in one process of (a)."""
    repeats: int = 3
    """Turns of (a) and (b)."""
    time_limit: float = 600.0
    """Seconds that one turn of (a) or (b) may take, start-up included."""
    json: bool = False
    """Print JSON."""

    def __post_init__(self) -> None:
        for name in ("batch", "accumulation", "workers", "threads", "epochs", "rounds", "repeats", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name.replace('_', '-')} is {getattr(self, name)}; give at least 1")
        if self.steps < 4:
            raise UserError(
                f"--steps is {self.steps}; give at least 4, with fewer no checkpoint lies between two others"
            )
        if self.precision != "float32" and self.zero_stage == 0:
            raise UserError(f"--zero-stage 0 does not go with --precision {self.precision}; use --zero-stage 1")


def bench_train(settings: Train, progress: Console) -> dict[str, Any]:
    """Measure (a) and (b) in turns.

    Raises:
        UserError: there is no such model or device.
        NoResultError: all turns failed or took too long.
    """
    import torch

    from cast_ray.bench.apart import NoResultError, run_apart
    from cast_ray.bench.device import describe
    from cast_ray.bench.train_case import make_dataset
    from cast_ray.bench.train_ladder import LadderJob, climb
    from cast_ray.bench.train_stack import StackJob, train_through

    if settings.device == "cuda" and torch.cuda.device_count() < settings.workers:
        raise UserError(
            f"--device is cuda and --workers {settings.workers}, but PyTorch finds {torch.cuda.device_count()} CUDA "
            "devices here; use --device cpu or fewer workers"
        )
    case, counted = _case(settings), _counted(settings)
    ladders, stacks = [], []
    with tempfile.TemporaryDirectory(prefix="cast_ray_bench_", ignore_cleanup_errors=True) as folder:
        with progress.status("rendering clips ..."):
            dataset = make_dataset(case, Path(folder))
        ladder = LadderJob(case=case, dataset=dataset, rounds=settings.rounds)
        for turn in range(settings.repeats):
            stack = StackJob(case=case, dataset=dataset, storage=f"{folder}/runs", name=f"turn-{turn}")
            what = f"turn {turn + 1} of {settings.repeats}"
            try:
                with _told(progress, f"{what}, bare loop and parts"):
                    parts = run_apart(climb, ladder, time_limit=settings.time_limit)
                with _told(progress, f"{what}, whole stack"):
                    whole = run_apart(train_through, stack, time_limit=settings.time_limit)
            except NoResultError as error:  # the other turns still count
                progress.print(f"{what}: {error}", soft_wrap=True, highlight=False, markup=False)
                continue
            ladders.append(parts)
            stacks.append(whole)
    if not stacks:
        raise NoResultError("no turn was completed")
    flags = {name: value for name, value in vars(settings).items() if name not in ("json", "time_limit")}
    return {
        **flags,
        "repeats": len(stacks),
        **counted,
        "checkpoint_activations": False,
        "environment": describe(torch.device(settings.device)),
        **compared(case, ladders, stacks),
        "turns": [{"parts": ladder, "stack": stack} for ladder, stack in zip(ladders, stacks, strict=True)],
    }


def compared(case: Case, ladders: Sequence[Mapping[str, Any]], stacks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The figures of all turns together.

    Args:
        case: what was trained.
        ladders: as `climb` returns them.
        stacks: as `train_through` returns them, one after each ladder.

    Returns:
        "bare" and "stack" with their speeds; "ratio" of the second to the first; "lost": by part, seconds per update
        and its share of the stack's update, by the clock and by processor time.
    """
    clock, processor = _lost(case, ladders, stacks, 0), _lost(case, ladders, stacks, 1)
    bare = [clock.pop("bare"), processor.pop("bare")]
    stack = [bare[0] + sum(clock.values()), bare[1] + sum(processor.values())]
    return {
        "bare": _speeds(case, bare, ladders),
        "stack": _speeds(case, stack, stacks) | {"data_wait": clock["data"] / stack[0]},
        "ratio": {"clips_per_second": bare[0] / stack[0], "processor_seconds_per_clip": bare[1] / stack[1]},
        "lost": {
            part: {
                "seconds": clock[part],
                "share": clock[part] / stack[0],
                "processor_seconds": processor[part],
                "processor_share": processor[part] / stack[1],
            }
            for part in clock
        },
    }


def _lost(
    case: Case, ladders: Sequence[Mapping[str, Any]], stacks: Sequence[Mapping[str, Any]], measure: Literal[0, 1]
) -> dict[str, float]:
    """Seconds per update of the bare loop, and what each part adds; `measure` 0 is by the clock, 1 processor time."""
    rung = {
        name: statistics.median(turn[measure] for ladder in ladders for turn in ladder["rungs"][name])
        for name in ladders[0]["rungs"]
    }
    whole = statistics.median(_steady(stack)[measure] for stack in stacks)
    waiting = statistics.median(_steady(stack)[2] for stack in stacks) if measure == 0 else 0.0
    lost = {
        "bare": rung["bare"],
        "deepspeed": rung["deepspeed"] - rung["bare"],
        "inputs": rung["inputs"] - rung["deepspeed"],
        "loop": rung["loop"] - rung["inputs"],
        "logging": (rung["logging"] - rung["loop"]) / case.epoch_steps,
        "checkpoints": (rung["checkpoints"] - rung["loop"]) * (case.epoch_steps - 1) / case.checkpoint_every,
        "data": waiting,
    }
    return lost | {"ray": whole - sum(lost.values())}


def _steady(stack: Mapping[str, Any]) -> tuple[float, float, float]:
    """Seconds, processor seconds and seconds of waiting for data per update, of all counted intervals together."""
    steps = sum(each["steps"] for each in stack["intervals"])

    def mean(weights: Sequence[float]) -> float:
        return sum(w * each["steps"] for w, each in zip(weights, stack["intervals"], strict=True)) / steps

    intervals = stack["intervals"]
    return (
        mean([each["seconds"] for each in intervals]),
        mean([each["processor_seconds"] for each in intervals]),
        mean([each["seconds"] * each["data_wait"] for each in intervals]),
    )


def _speeds(case: Case, seconds: Sequence[float], turns: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    return {
        "clips_per_second": case.global_batch / seconds[0],
        "processor_seconds_per_clip": seconds[1] * case.workers / case.global_batch,
        "start_seconds": statistics.median(turn["start_seconds"] for turn in turns),
        "first_loss": turns[0]["first_loss"],
    }


def _case(settings: Train) -> Case:
    from cast_ray.bench.train_case import Case

    return Case(
        model=settings.model,
        image_size=settings.image_size,
        frames=settings.frames,
        batch=settings.batch,
        accumulation=settings.accumulation,
        workers=settings.workers,
        threads=settings.threads,
        cuda=settings.device == "cuda",
        precision=settings.precision,
        zero_stage=settings.zero_stage,
        epoch_steps=settings.steps,
        epochs=settings.epochs + 1,
        checkpoint_every=settings.checkpoint_every,
    )


def _counted(settings: Train) -> dict[str, Any]:
    """Parameters and multiply-adds, which also finds out whether the model can have this size."""
    from cast_ray.bench.model import spec_for
    from cast_ray.data.synthetic import VERBS
    from cast_ray.models.costs import count_costs, count_step

    spec = spec_for(settings.model, image_size=settings.image_size, frames=settings.frames)
    classes = {"label": len(VERBS)}
    costs = count_costs(spec, classes)
    return {
        "parameters": costs.parameters,
        "trainable_parameters": costs.trainable_parameters,
        "multiply_adds_per_clip": {"training": count_step(spec, classes)},
    }


@contextmanager
def _told(progress: Console, what: str) -> Iterator[None]:
    """Say what is being done, and how long it took."""
    begun = time.monotonic()
    with progress.status(f"{what} ..."):
        yield
    progress.print(f"{what}: {time.monotonic() - begun:.0f} s", soft_wrap=True, highlight=False, markup=False)
