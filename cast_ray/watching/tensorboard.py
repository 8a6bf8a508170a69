"""How a run's figures get into its `tensorboard` folder, on a disk or in a bucket, without those of a lost part."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.fs as pafs

from cast_ray.data.storage import filesystem, is_local, joined

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

__all__ = ["TensorBoard"]

COPY_EVERY_S = 60.0


class TensorBoard:
    """Writes event files; into a bucket they are copied once a minute, because nothing can be appended there.

    Args:
        folder: path or URI of the run.
        config: its settings, shown as a text.
    """

    name = "TensorBoard"

    def __init__(self, folder: str, config: Mapping[str, Any]) -> None:
        self._config = config
        self._writer: SummaryWriter | None = None
        self._storage, self._target = filesystem(joined(folder, "tensorboard"))
        self._temporary = None if is_local(folder) else tempfile.TemporaryDirectory()
        self._copied = time.monotonic()

    def start(self, step: int) -> None:
        """TensorBoard then leaves out what it finds after `step` in older files."""
        from torch.utils.tensorboard import SummaryWriter  # takes seconds to import

        if self._writer is not None:
            self._writer.close()
        local = self._target if self._temporary is None else self._temporary.name
        self._writer = SummaryWriter(local, purge_step=step + 1 if step else 0)
        if step == 0:
            text = json.dumps(self._config, indent=2)
            self._writer.add_text("configuration", f"```json\n{text}\n```", 0)

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        if self._writer is None:
            self.start(0)
        assert self._writer is not None
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)
        if time.monotonic() - self._copied > COPY_EVERY_S:
            self._copy()

    def close(self, finished: bool) -> None:
        if self._writer is not None:
            self._writer.close()
            self._copy()
        if self._temporary is not None:
            self._temporary.cleanup()

    def _copy(self) -> None:
        self._copied = time.monotonic()
        if self._temporary is None or self._writer is None:
            return
        self._writer.flush()
        # Each part of the run has files of its own names, so that earlier ones stay.
        for path in sorted(Path(self._temporary.name).iterdir()):
            pafs.copy_files(str(path), f"{self._target}/{path.name}", destination_filesystem=self._storage)
