"""What a run tells of itself: rows, which workers post and everything that shows a run reads.

A row is one JSON object. Its `kind` says what it is about:

* step: step, epoch, loss, learning_rate, clips_per_s, data_wait (share of time, 0 to 1), grad_norm, unreadable (clips),
  seconds_left. When it is posted, but not when it is kept: bad_clips (different clips of the run, up to here), and
  workers: clips_per_s, data_wait, memory (bytes), gpu_memory (bytes, 0 on a CPU), each a list by rank
* epoch: epoch, step, validation (metrics by name)
* unreadable: epoch, clip_id, reason
* soundless: epoch, clip_id, reason; a clip whose sound is broken, taken as one without sound
* skipped: epoch, step, micro_batches, clip_ids; left out because their loss was not finite
* failure: rank, reason; note: rank, text; and reached: milestone (see `cast_ray.watching.startup`), at (Unix time),
  step (updates of the run before, 0 while the network is not ready). Only shown, not kept: a resumed run's history is
  that of the undisturbed one
"""

from __future__ import annotations

from typing import Any, Protocol

__all__ = ["Row", "Watcher"]

Row = dict[str, Any]


class Watcher(Protocol):
    """Something that shows a run, or keeps figures of it."""

    def show(self, row: Row) -> None:
        """Take the next row. Called from one thread, in the order in which rows were posted."""

    def close(self) -> None:
        """Finish: the run has ended, well or not."""
