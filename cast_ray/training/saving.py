"""When a checkpoint becomes one that Ray Train knows: written in the background by rank 0, then reported by all."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import ray.train
import torch
from ray.train import CheckpointConsistencyMode, CheckpointUploadMode
from torch import Tensor

from cast_ray.training.agreement import Notice, agree, together
from cast_ray.training.checkpoint import CheckpointState, write_checkpoint
from cast_ray.training.writer import BackgroundWriter
from cast_ray.watching.rows import Row

if TYPE_CHECKING:
    from ray.train.v2._internal.execution.storage import StorageContext

__all__ = ["SCORE", "Saving"]

SCORE = "score"
"""Name of the reported metric by which checkpoints are ranked."""
UNSCORED = -1.0
"""Score of a checkpoint without validation: below all others, so that it goes when it is no longer the latest."""
POLL_S = 0.2


class Saving:
    """The checkpoints of a run; at most one is being written. All methods but `written` are collectives.

    Ray's own upload thread is not used: a failure in it restarts all workers, again and again where the disk is full.

    Args:
        rank: of this worker.
        storage: of the run, as Ray Train's context returns it.
        retry_s: seconds in which a failing storage is tried again.
        say: is told of failures.
        beat: is called while waiting.
        device: for collectives.
    """

    def __init__(
        self,
        *,
        rank: int,
        storage: StorageContext,
        retry_s: float,
        say: Callable[[str], None],
        beat: Callable[[str], None],
        device: torch.device,
    ) -> None:
        self._rank = rank
        self._storage = storage
        self._beat = beat
        self._device = device
        self._writer = BackgroundWriter(
            storage.storage_filesystem, storage.experiment_fs_path, retry_s=retry_s, say=say
        )
        self._pending: dict[str, float] | None = None
        """Metrics of the checkpoint that is being written."""

    @property
    def written(self) -> bool:
        """Whether this worker has written a checkpoint that is not reported yet."""
        return self._writer.done

    def save(
        self,
        state: CheckpointState,
        tensors: Mapping[str, Mapping[str, Tensor]],
        history: list[Row],
        score: float | None,
    ) -> None:
        """Begin to write a checkpoint, after the one before it is complete.

        Args:
            state: of the run, without the weights' fingerprint.
            tensors: as `DeepSpeedStrategy.state` returns them; only rank 0's are used.
            history: up to here; only rank 0's is used.
            score: by validation; None without one.

        Raises:
            UserError: the checkpoint before this one could not be written.
        """
        self.wait()
        self._pending = {"epoch": state.position.epoch, SCORE: UNSCORED if score is None else score, **state.validation}
        if self._rank == 0:
            rows = list(history)
            storage = self._storage.storage_filesystem
            self._writer.start(lambda folder: write_checkpoint(folder, state, tensors, rows, storage=storage))

    def report(self) -> None:
        """Make the complete checkpoint known; `UserError` on all workers if it could not be written."""
        metrics, self._pending = self._pending, None
        folder = together(lambda: self._writer.result() if self._rank == 0 else None)
        checkpoint = None
        if folder is not None:
            checkpoint = ray.train.Checkpoint(folder, filesystem=self._storage.storage_filesystem)
        # The folder is where it belongs already. SYNC would wait for the controller to have looked at the one before.
        ray.train.report(metrics or {}, checkpoint=checkpoint, checkpoint_upload_mode=CheckpointUploadMode.NO_UPLOAD)

    def wait(self) -> None:
        """Wait until nothing is being written, and report it. `UserError` on all workers as in `report`."""
        while self._pending is not None:
            self._beat("waiting for a checkpoint to be written")
            if agree(Notice(written=self.written), self._device).written:
                self.report()
            else:
                time.sleep(POLL_S)

    def settle(self) -> None:
        """As `wait`, and until Ray Train's controller has taken note: the workers may end after it."""
        self.wait()
        ray.train.get_all_reported_checkpoints(consistency_mode=CheckpointConsistencyMode.COMMITTED)
