"""What goes wrong on purpose in the processes of a job: Python loads this before anything else if PYTHONPATH says so.

The folder that the variable FAULTS names has a file for every fault that is wanted now:

    pace        every micro batch takes so many seconds longer
    decoding    every decode task takes so many seconds longer
    hang        the worker of rank 1 hangs, once
    nan         the loss of rank 1 is not finite in "EPOCH STEP", whenever it comes there
    full        the disk is full for a checkpoint, after a part of it is written
    list        Ray's list of checkpoints cannot be written, once
"""

from __future__ import annotations

import errno
import importlib.abc
import importlib.machinery
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

FOLDER = Path(os.environ["FAULTS"])
FOREVER_S = 3600


def wanted(fault: str) -> str | None:
    """The content of a fault's file."""
    try:
        return (FOLDER / fault).read_text()
    except FileNotFoundError:
        return None


def once(fault: str) -> bool:
    """Whether a fault is wanted, which is then over."""
    try:
        (FOLDER / fault).unlink()
    except FileNotFoundError:
        return False
    return True


def change_loop(loop: Any) -> None:
    loss = loop._loss

    def changed(worker: Any, batch: dict[str, Any], *arguments: Any, blank: bool = False) -> Any:
        time.sleep(float(wanted("pace") or 0))
        value = loss(worker, batch, *arguments, blank=blank)
        if worker.rank != 1 or blank:
            return value
        if once("hang"):
            time.sleep(FOREVER_S)
        return value * float("nan") if wanted("nan") == f"{batch['epoch'][0]} {batch['step'][0]}" else value

    loop._loss = changed


def change_saving(saving: Any) -> None:
    write = saving.write_checkpoint

    def changed(folder: str, *arguments: Any, **options: Any) -> None:
        if wanted("full") is not None:
            Path(folder, "weights.safetensors").write_bytes(b"a part")
            raise OSError(errno.ENOSPC, "No space left on device")
        write(folder, *arguments, **options)

    saving.write_checkpoint = changed


def change_loader(loader: Any) -> None:
    load = loader.ClipLoader.__call__

    def changed(self: Any, rows: Any) -> Any:
        time.sleep(float(wanted("decoding") or 0))
        return load(self, rows)

    loader.ClipLoader.__call__ = changed


def change_manager(manager: Any) -> None:
    write = manager.CheckpointManager._write_state_to_storage

    def changed(self: Any) -> None:
        if once("list"):
            raise OSError(errno.EIO, "the storage is away")
        write(self)

    manager.CheckpointManager._write_state_to_storage = changed


CHANGES: dict[str, Callable[[Any], None]] = {
    "cast_ray.training.loop": change_loop,
    "cast_ray.training.saving": change_saving,
    "cast_ray.data.loader": change_loader,
    "ray.train.v2._internal.execution.checkpoint.checkpoint_manager": change_manager,
}


class Changing(importlib.abc.MetaPathFinder):
    """Changes modules as soon as they are imported."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name not in CHANGES:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            CHANGES[name](module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


sys.meta_path.insert(0, Changing())
