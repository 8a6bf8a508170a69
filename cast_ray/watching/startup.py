"""Where the time goes between the command and the first update, and after a failure until the next one.

Milestones are passed in this order, first on the driver, then on rank 0 of the workers. The clocks of the two machines
are compared; that they agree to a second is enough.
"""

from __future__ import annotations

import time

import psutil
import ray

from cast_ray.watching.rows import Row

__all__ = ["DATA", "MODEL", "STEP", "WORKERS", "Startup", "process_start"]

WORKERS, MODEL, DATA, STEP = "workers", "model", "data", "step"
"""Milestones of a worker: it runs our code; its network is ready; the first batch is there; the first update is done.
"""


class Startup:
    """The milestones so far.

    Args:
        began: Unix time from which the first one is counted.
    """

    def __init__(self, began: float) -> None:
        self._began = self._last = began
        self._steps: dict[str, float] = {}
        self.again = False
        """Whether this is not the first time: workers were lost."""

    @property
    def done(self) -> bool:
        """Whether the first update is done."""
        return STEP in self._steps

    @property
    def seconds(self) -> float:
        """From the beginning to the last milestone."""
        return self._last - self._began

    def reached(self, milestone: str, at: float | None = None) -> None:
        """Note a milestone that was reached now, or at a Unix time."""
        at = max(self._last, time.time() if at is None else at)
        self._steps[milestone] = at - self._last
        self._last = at

    def take(self, row: Row) -> None:
        """Note what a row says about milestones; a first one that comes again begins anew."""
        if row["kind"] == "failure" or (self.done and row.get("milestone") == WORKERS):
            self._began = self._last = time.time() if row["kind"] == "failure" else row["at"]
            self._steps, self.again = {}, True
        if row["kind"] == "reached":
            self.reached(row["milestone"], row["at"])

    def __str__(self) -> str:
        """For example: first step after 41 s: imports 5, cluster 6, workers 14, model 4, data 7, step 5."""
        parts = ", ".join(f"{name} {seconds:.0f}" for name, seconds in self._steps.items() if seconds >= 0.5)
        what = ("next" if self.again else "first") + " step"
        return f"{what} after {self.seconds:.0f} s: {parts}" if self.done else f"until now: {parts or 'nothing yet'}"


def process_start() -> float:
    """Unix time at which this process was started; now, if it has done something else before (a cluster is there)."""
    return time.time() if ray.is_initialized() else psutil.Process().create_time()
