"""What a run's folder holds, and how it is put in order after an end at any moment.

Ray Train lists the checkpoints that it knows in `checkpoint_manager_snapshot.json`. It writes the list in place, so
that a kill at the wrong moment leaves a damaged one, and it deletes a folder only after it has left the list.

Ray takes seconds to import, and who only looks for a checkpoint to predict with does not need it.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING

import pyarrow.fs as pafs

from cast_ray.data.order import Position
from cast_ray.data.storage import filesystem, written_whole
from cast_ray.errors import UserError
from cast_ray.training.checkpoint import FILES, CheckpointState, fetch_state, state_at
from cast_ray.training.metrics import score

if TYPE_CHECKING:
    import ray.train

__all__ = [
    "complete_checkpoints",
    "data_position",
    "latest_checkpoint",
    "latest_position",
    "listed_checkpoint",
    "mend_list",
    "remove_leftovers",
]

LIST_FILE = "checkpoint_manager_snapshot.json"
PREFIX = "checkpoint_"


def latest_checkpoint(folder: str) -> ray.train.Checkpoint | None:
    """The one that a run goes on from; None if there is none."""
    import ray.train

    try:
        return ray.train.Result.from_path(folder).checkpoint
    except RuntimeError:  # Ray's way of saying that there is no run yet
        return None


def latest_position(folder: str) -> Position:
    """Where a run's latest checkpoint stands; the beginning if there is none."""
    checkpoint = latest_checkpoint(folder)
    return Position() if checkpoint is None else fetch_state(checkpoint).position


def data_position(position: Position, steps_per_epoch: int) -> Position:
    """The first step from a checkpoint's position on; at the end of an epoch, only its validation may be due."""
    return position if position.step < steps_per_epoch else Position(epoch=position.epoch + 1, step=0)


def listed_checkpoint(folder: str, position: Position) -> str | None:
    """Name of a run's checkpoint at a position, if Ray has it in its list: a later start of the run leaves it there."""
    storage, root = filesystem(folder)
    for name in _listed(storage, root) or ():
        with suppress(UserError, FileNotFoundError):  # Ray may be deleting it
            if state_at(storage, f"{root}/{name}").position == position:
                return name
    return None


def mend_list(folder: str) -> bool:
    """Make Ray's list anew from the complete checkpoints of a run if it is missing or damaged; whether that was done.

    Called before Ray reads the list, when nothing of the run is going on.
    """
    storage, root = filesystem(folder)
    if _listed(storage, root):
        return False
    states = complete_checkpoints(storage, root)  # damaged ones go with the leftovers
    if not states:
        with suppress(FileNotFoundError):
            storage.delete_file(f"{root}/{LIST_FILE}")
        return False
    with written_whole(storage, f"{root}/{LIST_FILE}") as sink:
        sink.write(json.dumps(_list_of(states)).encode())
    return True


def complete_checkpoints(storage: pafs.FileSystem, root: str) -> dict[str, CheckpointState]:
    """The complete checkpoints of a run by the names of their folders, oldest first, whatever Ray's list says."""
    states = {}
    for name in _folders(storage, root):
        with suppress(UserError):  # damaged
            if _is_complete(storage, f"{root}/{name}"):
                states[name] = state_at(storage, f"{root}/{name}")
    return states


def remove_leftovers(storage: pafs.FileSystem, root: str) -> list[str]:
    """Delete the checkpoint folders of a run that Ray does not list: half written, or half deleted; their names.

    Called when nothing is being written.
    """
    listed = _listed(storage, root)
    leftovers = [] if listed is None else [name for name in _folders(storage, root) if name not in listed]
    for name in leftovers:
        storage.delete_dir(f"{root}/{name}")
    return leftovers


def _folders(storage: pafs.FileSystem, root: str) -> list[str]:
    """Names of the checkpoint folders, oldest first."""
    found = storage.get_file_info(pafs.FileSelector(root, allow_not_found=True))
    return sorted(
        info.base_name for info in found if info.type == pafs.FileType.Directory and info.base_name.startswith(PREFIX)
    )


def _listed(storage: pafs.FileSystem, root: str) -> set[str] | None:
    """Names of the folders in Ray's list, none if there is no list yet; None: it is damaged."""
    try:
        with storage.open_input_stream(f"{root}/{LIST_FILE}") as source:
            content = json.loads(source.read())
        return {row["checkpoint_dir_name"] for row in content["checkpoint_results"]}
    except FileNotFoundError:
        return set()
    except (ValueError, KeyError, TypeError):
        return None


def _is_complete(storage: pafs.FileSystem, folder: str) -> bool:
    infos = storage.get_file_info([f"{folder}/{name}" for name in FILES])
    return all(info.type == pafs.FileType.File for info in infos)


def _list_of(states: dict[str, CheckpointState]) -> dict[str, object]:
    """What Ray's list looks like, from checkpoints by folder name, oldest first (Ray 2.60)."""
    import ray

    from cast_ray.training.saving import SCORE, UNSCORED

    scores = {name: score(state.validation) if state.validation else UNSCORED for name, state in states.items()}
    rows = [
        {"version": 0, "checkpoint_dir_name": name, "metrics": {SCORE: scores[name], **states[name].validation}}
        for name in states
    ]
    order = sorted(range(len(rows)), key=lambda index: (scores[str(rows[index]["checkpoint_dir_name"])], index))
    return {
        "ray_version": ray.__version__,
        "checkpoint_results": [rows[index] for index in order],
        "checkpoint_report_indices": order,
        "latest_checkpoint_result": max(rows, key=lambda row: _place(states[str(row["checkpoint_dir_name"])].position)),
        "pending_training_results": [],
        "pending_validation_specs": [],
        "current_report_index": len(rows),
        "validated_checkpoint_dir_names": [],
        "timed_out_validation_checkpoint_dir_names": [],
        "failed_validation_checkpoint_dir_names": [],
    }


def _place(position: Position) -> tuple[int, int]:
    return position.epoch, position.step
