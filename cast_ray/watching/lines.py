"""How a row reads as one line of a log: what matters most is in the first 80 columns."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape

from cast_ray.watching.rows import Row
from cast_ray.watching.startup import STEP, Startup

__all__ = ["Lines", "accuracies", "amount", "describe", "rate", "time_left"]


class Lines:
    """Prints one line for each row, except for milestones: one when all are passed."""

    def __init__(self, console: Console, startup: Startup) -> None:
        self._console = console
        self._startup = startup

    def show(self, row: Row) -> None:
        self._startup.take(row)
        if row["kind"] != "reached":
            self._print(describe(row))
        elif row["milestone"] == STEP:
            self._print(f"  {self._startup}")

    def close(self) -> None:
        """Nothing to do."""

    def _print(self, line: str) -> None:
        self._console.print(line, highlight=False, soft_wrap=True)


def describe(row: Row) -> str:
    """The line, in rich's markup."""
    if row["kind"] == "step":
        return _step(row)
    if row["kind"] == "epoch":
        return f"  epoch {row['epoch']:5d}  [bold]validation[/]  {accuracies(row)}"
    if row["kind"] == "failure":
        return (
            f"  [red]worker {row['rank']} failed[/]  {escape(row['reason'])}; going on from the latest checkpoint, "
            "if allowed"
        )
    if row["kind"] == "note":
        return f"  [yellow]worker {row['rank']}[/]  {escape(row['text'])}"
    if row["kind"] == "skipped":
        clips = escape(", ".join(row["clip_ids"]))
        return f"  [yellow]left out[/]  step {row['step'] + 1} of epoch {row['epoch'] + 1}: loss not finite on {clips}"
    what = "no sound" if row["kind"] == "soundless" else "unreadable"
    return f"  [yellow]{what}[/]  clip {escape(row['clip_id'])}: {escape(row['reason'])}"


def _step(row: Row) -> str:
    workers = row["workers"]
    each, memory, gpu_memory = workers["clips_per_s"], max(workers["memory"]), max(workers["gpu_memory"])
    parts = [
        f"epoch {row['epoch']:5.2f}",
        f"step {row['step']:5d}",
        f"loss {row['loss']:.3f}",
        f"{rate(row['clips_per_s'])} clips/s",
        f"wait {row['data_wait']:3.0%}",
        f"left {time_left(row['seconds_left'])}",
        f"lr {row['learning_rate']:.1e}",
        f"norm {row['grad_norm']:.2f}" if row["grad_norm"] is not None else "",
        f"each {rate(mean(each))}" if len(each) > 1 else "",
        f"mem {amount(memory)}",
        f"GPU {amount(gpu_memory)}" if gpu_memory else "",
        f"[yellow]bad {row['bad_clips']}[/]" if row["bad_clips"] else "",
    ]
    return "  " + "  ".join(part for part in parts if part)


def accuracies(row: Row) -> str:
    """Loss and top-1 accuracies of a validation."""
    validation = row["validation"]
    top1 = "  ".join(
        f"{name.removesuffix('_top1')} {value:.1%}" for name, value in validation.items() if "top1" in name
    )
    return f"loss {validation['loss']:.3f}  top-1: {top1}"


def mean(values: Sequence[float]) -> float:
    """Of at least one value."""
    return sum(values) / len(values)


def rate(clips_per_s: float) -> str:
    """Three digits that count: 0.012, 1.23, 12.3, 123, 1234."""
    digits = 0 if clips_per_s >= 100 else 1 if clips_per_s >= 10 else 2 if clips_per_s >= 1 else 3
    return f"{clips_per_s:.{digits}f}"


def amount(size: float) -> str:
    """Bytes as GB: 0.42 GB, 61.2 GB."""
    gigabytes = size / 1e9
    return f"{gigabytes:.{2 if gigabytes < 1 else 1}f} GB"


def time_left(seconds: float) -> str:
    """Hours, minutes and seconds."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
