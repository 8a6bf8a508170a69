"""What happens when a loss is not finite: the run stops, or the micro batch is left out; on all workers alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from cast_ray.errors import UserError
from cast_ray.training.agreement import gather
from cast_ray.training.history import RunLog

__all__ = ["ADVICE", "BadLosses"]

IN_A_ROW = 10
"""Micro batches left out one after the other that end the run: then it is not the clips."""
SHARE = 0.01
"""Share of an epoch's micro batches that may be left out, though never less than `IN_A_ROW` of them."""
ADVICE = (
    "start anew, under another --name, with a lower --optim.base-lr, a longer --optim.warmup-epochs or a clipped "
    "gradient (--optim.clip-grad 1)"
)


class BadLosses:
    """Counts the micro batches that were left out in one epoch.

    Args:
        policy: "stop" at the first one, or "skip" them.
        log: of the run.
        epoch: counted from 0.
        micro_batches: of all workers in the epoch.
    """

    def __init__(self, policy: Literal["stop", "skip"], log: RunLog, *, epoch: int, micro_batches: int) -> None:
        self._policy = policy
        self._log = log
        self._epoch = epoch
        self._allowed = max(IN_A_ROW, math.floor(SHARE * micro_batches))
        self._skipped = log.skipped_in(epoch)
        self._in_a_row = 0

    def none(self) -> None:
        """No worker's loss was bad."""
        self._in_a_row = 0

    def found(self, clip_ids: Sequence[str], step: int) -> None:
        """Some worker's loss was bad; note it, or end the run. A collective.

        Args:
            clip_ids: of this worker's micro batch, if its loss was bad; else none.
            step: within the epoch.

        Raises:
            UserError: it is to stop, or too many were left out. On all workers.
        """
        everywhere = [ids for ids in gather(list(clip_ids)) if ids]
        clips = sorted(clip_id for ids in everywhere for clip_id in ids)
        if self._policy == "stop":
            raise UserError(
                f"the loss is not finite in epoch {self._epoch + 1}, step {step + 1}, on the clips {', '.join(clips)}; "
                f"look at them; go on without such micro batches (--optim.on-bad-loss skip); or {ADVICE}"
            )
        self._skipped += len(everywhere)
        self._in_a_row += 1
        self._log.post(
            {
                "kind": "skipped",
                "epoch": self._epoch,
                "step": step,
                "micro_batches": len(everywhere),
                "clip_ids": clips,
            }
        )
        if self._in_a_row >= IN_A_ROW or self._skipped > self._allowed:
            raise UserError(
                f"the loss was not finite for {self._skipped} micro batches of epoch {self._epoch + 1}, "
                f"{self._in_a_row} of them in a row, so it is not single clips; {ADVICE}"
            )
