"""What a worker puts into the run's history; the rows are described in `cast_ray.watching.rows`."""

from __future__ import annotations

import dataclasses
import time
from contextlib import suppress
from typing import Any

import ray
from ray.actor import ActorHandle

from cast_ray.training.agreement import gather
from cast_ray.training.meter import Interval
from cast_ray.watching.rows import Row

__all__ = ["RunLog"]


class RunLog:
    """The history up to now. Rank 0 keeps it up to date and posts what is new; the others only hold what was resumed.

    Args:
        rank: of this worker.
        board: as `cast_ray.training.progress.make_board` returns it.
        rows: of the checkpoint that the run goes on from.
    """

    def __init__(self, rank: int, board: ActorHandle, rows: list[Row]) -> None:
        self._rank = rank
        self._board = board
        self._reached: set[str] = set()
        self.rows = rows

    def post(self, row: Row, **only_shown: Any) -> None:
        """Keep and show a row, the latter with more fields; on other ranks than 0 nothing happens."""
        if self._rank == 0:
            self.rows.append(row)
            self._board.post.remote(row | only_shown)

    def reached(self, milestone: str) -> None:
        """Show, without keeping it, that a milestone of `cast_ray.watching.startup` is reached for the first time."""
        if self._rank == 0 and milestone not in self._reached:
            self._reached.add(milestone)
            row = {"kind": "reached", "milestone": milestone, "at": time.time(), "step": self._last_step()}
            self._board.post.remote(row)

    def say(self, text: str, within_s: float | None = None) -> None:
        """Show a remark of this worker, without keeping it; given a time, wait as long for it to have arrived."""
        posted = self._board.post.remote({"kind": "note", "rank": self._rank, "text": text})
        if within_s is not None:
            with suppress(ray.exceptions.RayError):
                ray.get(posted, timeout=within_s)

    def step(
        self, interval: Interval, *, done: int, steps: int, epoch: float, rate: float, grad_norm: float | None
    ) -> None:
        """A row about the steps since the last such row.

        Args:
            interval: what was measured.
            done: updates up to here, in the whole run.
            steps: updates of the whole run.
            epoch: epochs up to here.
            rate: learning rate of the last update.
            grad_norm: of the last update.
        """
        workers = [dataclasses.asdict(worker) for worker in interval.workers]
        self.post(
            {
                "kind": "step",
                "step": done,
                "epoch": epoch,
                "loss": interval.loss,
                "learning_rate": rate,
                "clips_per_s": interval.clips_per_s,
                "data_wait": interval.data_wait,
                "grad_norm": grad_norm,
                "unreadable": interval.unreadable,
                "seconds_left": interval.seconds / max(done - self._last_step(), 1) * (steps - done),
            },
            bad_clips=len({row["clip_id"] for row in self.rows if row["kind"] == "unreadable"}),
            workers={name: [worker[name] for worker in workers] for name in workers[0]},
        )

    def unreadable(self, found: dict[str, str], epoch: int) -> None:
        """A row for each unreadable clip that any worker has newly found. A collective."""
        for clips in gather(found):
            for clip_id, reason in sorted(clips.items()):
                self.post({"kind": "unreadable", "epoch": epoch, "clip_id": clip_id, "reason": reason})

    def soundless(self, found: dict[str, str], epoch: int) -> None:
        """A row, once per run, for every clip with broken sound that any worker has found. A collective."""
        everywhere = gather(found)
        known = {row["clip_id"] for row in self.rows if row["kind"] == "soundless"}
        for clip_id, reason in sorted(clip for clips in everywhere for clip in clips.items() if clip[0] not in known):
            self.post({"kind": "soundless", "epoch": epoch, "clip_id": clip_id, "reason": reason})

    def unreadable_in(self, epoch: int, steps_per_epoch: int) -> int:
        """Clips that could not be read up to here in an epoch: what every worker knows of the epoch it goes on in."""
        rows = [row for row in self.rows if row["kind"] == "step" and (row["step"] - 1) // steps_per_epoch == epoch]
        return sum(row["unreadable"] for row in rows)

    def skipped_in(self, epoch: int) -> int:
        """Micro batches left out up to here in an epoch: what every worker knows of the epoch it goes on in."""
        return sum(row["micro_batches"] for row in self.rows if row["kind"] == "skipped" and row["epoch"] == epoch)

    def _last_step(self) -> int:
        """Updates up to the last row about them; with every checkpoint there is one."""
        return next((row["step"] for row in reversed(self.rows) if row["kind"] == "step"), 0)
