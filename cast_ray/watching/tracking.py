"""Where a run's figures are kept for later: TensorBoard, and if asked for MLflow and Weights & Biases."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping
from typing import Protocol

from cast_ray.watching.rows import Row
from cast_ray.watching.startup import MODEL

__all__ = ["Tracked", "Tracker", "figures"]

CLOSE_S = 60.0
"""Seconds in which a tracker may finish after the run's end."""


class Tracker(Protocol):
    """A program that keeps figures of runs. Every method may raise anything; that never stops a run."""

    name: str

    def start(self, step: int) -> None:
        """What follows are the figures after `step` updates; again, if the run was interrupted later than that."""

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Keep figures after `step` updates."""

    def close(self, finished: bool) -> None:
        """Nothing follows; `finished`: the run is complete, and not to be continued."""


class Tracked:
    """Hands rows to one tracker, in a thread of its own: a server that does not answer holds nothing up.

    Args:
        tracker: is used by that thread only.
        epochs: of the whole run.
        warn: is told, once, that the tracker has failed. Rows that it did not take are lost, later ones are tried.
    """

    def __init__(self, tracker: Tracker, *, epochs: int, warn: Callable[[str], None]) -> None:
        self._tracker, self._epochs, self._warn = tracker, epochs, warn
        self._finished = self._warned = False
        self._waiting: queue.SimpleQueue[Row | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=f"tracker of {tracker.name}", daemon=True)
        self._thread.start()

    def show(self, row: Row) -> None:
        """Keep what a row says, soon."""
        self._waiting.put(row)

    def close(self) -> None:
        """Wait until all is kept, but not for ever."""
        self._waiting.put(None)
        self._thread.join(CLOSE_S)
        if self._thread.is_alive():
            self._failed(f"not all figures were taken within {CLOSE_S:.0f} s after the end")

    def _work(self) -> None:
        while (row := self._waiting.get()) is not None:
            self._try(lambda row=row: self._take(row))  # type: ignore[misc]
        self._try(lambda: self._tracker.close(self._finished))

    def _take(self, row: Row) -> None:
        if row["kind"] == "reached" and row["milestone"] == MODEL:
            self._tracker.start(row["step"])
        values = figures(row)
        if values:
            self._tracker.log(row["step"], values)
        self._finished = self._finished or (row["kind"] == "epoch" and row["epoch"] == self._epochs)

    def _try(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:
            self._failed(f"{type(error).__name__}: {error}")

    def _failed(self, reason: str) -> None:
        if not self._warned:
            self._warned = True
            self._warn(f"{self._tracker.name} does not take the run's figures ({reason}); training goes on")


def figures(row: Row) -> dict[str, float]:
    """The figures of a row, by the names that all trackers have for them; {} if the row has none."""
    if row["kind"] == "epoch":
        return {f"validation/{name}": value for name, value in row["validation"].items()}
    if row["kind"] != "step":
        return {}
    names = ("epoch", "loss", "learning_rate", "clips_per_s", "data_wait", "grad_norm", "bad_clips")
    values = {name: row[name] for name in names}
    for name in ("memory", "gpu_memory"):
        values[f"{name}_gb"] = max(row["workers"][name]) / 1e9 or None
    return {f"train/{name}": float(value) for name, value in values.items() if value is not None}
