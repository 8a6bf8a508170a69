"""Which checkpoint a place means, and how its files get onto this machine."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow.fs as pafs

from cast_ray.data.storage import filesystem, retried
from cast_ray.errors import UserError
from cast_ray.training.checkpoint import STATE_FILE, WEIGHTS_FILE, CheckpointState
from cast_ray.training.folder import complete_checkpoints
from cast_ray.training.metrics import score

__all__ = ["find_checkpoint", "local_files", "local_weights"]


def find_checkpoint(place: str) -> tuple[pafs.FileSystem, str]:
    """The checkpoint that is meant: `place` itself, or the best of the run whose folder it is.

    The best is chosen as at the end of a run; without any validation yet it is the latest.

    Args:
        place: path or URI.

    Returns:
        Its storage, and its folder there.

    Raises:
        UserError: it is neither, or cannot be read.
    """
    storage, path = filesystem(place)
    here, state = retried(lambda: storage.get_file_info([path, f"{path}/{STATE_FILE}"]), what=place)
    if state.type == pafs.FileType.File:
        return storage, path
    wanted = "give the folder of a run or of a checkpoint, or a .safetensors file that `cast-ray export` has written"
    if here.type == pafs.FileType.NotFound:
        raise UserError(f"there is no checkpoint at '{place}'; {wanted}")
    if here.type == pafs.FileType.File:
        raise UserError(f"'{place}' is a file, but not one that `cast-ray export` has written; {wanted}")
    states = retried(lambda: complete_checkpoints(storage, path), what=place)
    if not states:
        raise UserError(
            f"'{place}' is neither a checkpoint (it has no {STATE_FILE}) nor a run (it has no complete folder "
            "checkpoint_*); give the folder of a checkpoint or of a run"
        )
    return storage, f"{path}/{_best(states)}"


@contextmanager
def local_files(storage: pafs.FileSystem, folder: str, names: Sequence[str]) -> Iterator[Path]:
    """A local folder with the files `names` of `folder`: that folder itself, or while the block runs a copy."""
    if isinstance(storage, pafs.LocalFileSystem):
        yield Path(folder)
        return
    with tempfile.TemporaryDirectory() as copy:
        for name in names:
            source, target = f"{folder}/{name}", f"{copy}/{name}"
            fetch = functools.partial(pafs.copy_files, source, target, storage, pafs.LocalFileSystem())
            retried(fetch, what=source)
        yield Path(copy)


@contextmanager
def local_weights(storage: pafs.FileSystem, folder: str) -> Iterator[Path]:
    """As `local_files`, with what of a checkpoint makes a model: not the optimiser's state, which is twice as large."""
    with local_files(storage, folder, (STATE_FILE, WEIGHTS_FILE)) as path:
        yield path


def _best(states: Mapping[str, CheckpointState]) -> str:
    scores = {name: score(state.validation) for name, state in states.items() if state.validation}
    if scores:
        return max(scores, key=lambda name: scores[name])
    return max(states, key=lambda name: (states[name].position.epoch, states[name].position.step))
