"""How a run shows what it does: workers post rows, the driver prints them as they come and keeps them.

The rows are the run's history (`history.jsonl`), one JSON object each, told apart by `kind`:

* step: step, epoch, loss, learning_rate, clips_per_s, data_wait (share of time, 0 to 1), grad_norm, unreadable (clips),
  seconds_left
* epoch: epoch, step, validation (metrics by name)
* unreadable: epoch, clip_id, reason
* soundless: epoch, clip_id, reason; a clip whose sound is broken, taken as one without sound
* skipped: epoch, step, micro_batches, clip_ids; left out because their loss was not finite
* failure: rank, reason; and note: rank, text. Only shown, not kept: a resumed run's history is that of the undisturbed
  one
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import ray
from ray.actor import ActorHandle
from rich.console import Console
from rich.markup import escape

__all__ = ["Row", "make_board", "shown"]

Row = dict[str, Any]
POLL_S = 0.5


class _Board:
    """The actor between workers and driver: posted rows wait here until the driver takes them."""

    def __init__(self) -> None:
        self._rows: list[Row] = []
        self._signal: str | None = None

    def post(self, row: Row) -> None:
        self._rows.append(row)

    def take(self) -> list[Row]:
        rows, self._rows = self._rows, []
        return rows

    def stop(self, signal: str) -> None:
        self._signal = signal

    def stopped_by(self) -> str | None:
        return self._signal


def make_board() -> ActorHandle:
    """Start the actor; workers call `board.post.remote(row)` and do not wait.

    The other way goes `board.stop.remote(signal)`: the run is to stop, as `board.stopped_by.remote()` tells.
    """
    return ray.remote(num_cpus=0)(_Board).remote()


@contextmanager
def shown(board: ActorHandle, console: Console, tensorboard: Path | None) -> Iterator[None]:
    """Print rows while the block runs, and write them as TensorBoard scalars into a local folder if one is given."""
    stop = threading.Event()
    printer = _Printer(console, tensorboard)

    def poll() -> None:
        while not stop.wait(POLL_S):
            with suppress(ray.exceptions.RayError):  # the cluster may be going down; the run's own error says more
                for row in ray.get(board.take.remote(), timeout=60):
                    printer.show(row)

    thread = threading.Thread(target=poll, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=65)
        with suppress(ray.exceptions.RayError):
            for row in ray.get(board.take.remote(), timeout=60):
                printer.show(row)
        printer.close()


class _Printer:
    def __init__(self, console: Console, tensorboard: Path | None) -> None:
        self._console = console
        self._writer: Any = None
        if tensorboard is not None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(tensorboard))

    def show(self, row: Row) -> None:
        self._console.print(describe(row), highlight=False, soft_wrap=True)
        if self._writer is not None:
            self._write_scalars(row)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()

    def _write_scalars(self, row: Row) -> None:
        if row["kind"] == "step":
            for name in ("loss", "learning_rate", "clips_per_s", "data_wait", "grad_norm"):
                if row[name] is not None:
                    self._writer.add_scalar(f"train/{name}", row[name], row["step"])
        elif row["kind"] == "epoch":
            for name, value in row["validation"].items():
                self._writer.add_scalar(f"validation/{name}", value, row["step"])


def describe(row: Row) -> str:
    """One line for the terminal, in rich's markup."""
    if row["kind"] == "step":
        return (
            f"  epoch {row['epoch']:6.2f}  step {row['step']:5d}  loss {row['loss']:.3f}  "
            f"lr {row['learning_rate']:.2e}  {_rate(row['clips_per_s'])} clips/s  "
            f"waiting for data {row['data_wait']:4.0%}  left {_minutes(row['seconds_left'])}"
        )
    if row["kind"] == "epoch":
        accuracies = "  ".join(
            f"{name.removesuffix('_top1')} {value:.1%}" for name, value in row["validation"].items() if "top1" in name
        )
        return (
            f"  epoch {row['epoch']:6d}  [bold]validation[/]  loss {row['validation']['loss']:.3f}  top-1: {accuracies}"
        )
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


def _rate(clips_per_s: float) -> str:
    return f"{clips_per_s:6.1f}" if clips_per_s >= 1 else f"{clips_per_s:6.3f}"


def _minutes(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
