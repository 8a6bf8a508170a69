"""What a checkpoint holds, and how it is read back: only what trains, and what tells whether it fits.

A checkpoint is a folder::

    weights.safetensors     the trainable tensors, float32; averaged ones if the run keeps a moving average
    optimizer.safetensors   what the optimiser keeps, its counters, and beside averaged weights those that are trained
    history.jsonl           what was logged up to here
    state.json              position, configuration, label map, fingerprints; written last

The frozen weights are not in it: they come from the expert checkpoints that the configuration names, and their
fingerprint is compared. Nothing here is a pickle, so that a checkpoint from elsewhere cannot run code.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.fs as pafs
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from cast_ray.data.order import Position
from cast_ray.data.storage import written_whole
from cast_ray.errors import UserError
from cast_ray.labels import LabelMap

if TYPE_CHECKING:
    import ray.train

__all__ = [
    "FILES",
    "STATE_FILE",
    "CheckpointState",
    "SavedRun",
    "copy_checkpoint",
    "fetch_history",
    "fetch_state",
    "load_weights",
    "read_history",
    "read_run",
    "read_state",
    "state_at",
    "write_checkpoint",
]

FORMAT_VERSION = 1
WEIGHTS_FILE, OPTIMIZER_FILE = "weights.safetensors", "optimizer.safetensors"
HISTORY_FILE, STATE_FILE = "history.jsonl", "state.json"
FILES = (WEIGHTS_FILE, OPTIMIZER_FILE, HISTORY_FILE, STATE_FILE)
"""Everything that a complete checkpoint has."""
COPY_BYTES = 16 * 2**20


@dataclass(frozen=True, kw_only=True)
class CheckpointState:
    """Everything about a checkpoint except its tensors."""

    position: Position
    """The next step of the run."""
    config: dict[str, Any]
    """`RunConfig.to_dict()` of the run."""
    label_map: LabelMap
    dataset: str
    """Fingerprint of the dataset."""
    frozen: str
    """Fingerprint of the frozen weights."""
    validation: dict[str, float]
    """Metrics of the validation split at this point."""
    fingerprint: str = ""
    """First 16 hex digits of the SHA-256 of the file with the trained tensors; known once it is written."""


def write_checkpoint(
    folder: Path | str,
    state: CheckpointState,
    tensors: Mapping[str, Mapping[str, Tensor]],
    history: list[dict[str, Any]],
    storage: pafs.FileSystem | None = None,
) -> None:
    """Write a complete checkpoint into an empty folder, every file whole.

    Args:
        folder: a path on `storage`.
        state: of the run, without the weights' fingerprint.
        tensors: as `DeepSpeedStrategy.state` returns them.
        history: rows, see `cast_ray.training.progress`.
        storage: None: this machine's files.
    """

    def write(name: str, content: bytes) -> None:
        with written_whole(storage or pafs.LocalFileSystem(), f"{folder}/{name}") as sink:
            sink.write(content)

    weights = save(dict(tensors["weights"]))
    fingerprint = _fingerprint(weights)
    write(WEIGHTS_FILE, weights)
    del weights  # one serialised file in memory at a time
    optimizer = {
        f"{kind}.{name}": t for kind, named in tensors.items() if kind != "weights" for name, t in named.items()
    }
    write(OPTIMIZER_FILE, save(optimizer))
    write(HISTORY_FILE, "".join(json.dumps(row) + "\n" for row in history).encode())
    head = {
        "format_version": FORMAT_VERSION,
        "position": {"epoch": state.position.epoch, "step": state.position.step},
        "config": state.config,
        "label_map": state.label_map.to_json(),
        "label_map_fingerprint": state.label_map.fingerprint,
        "dataset": state.dataset,
        "frozen": state.frozen,
        "validation": state.validation,
        "fingerprint": fingerprint,
    }
    write(STATE_FILE, json.dumps(head, indent=2).encode())


def copy_checkpoint(
    source: tuple[pafs.FileSystem, str], target: tuple[pafs.FileSystem, str], config: dict[str, Any]
) -> None:
    """Copy a complete checkpoint, every file whole and the state last, with another configuration in it.

    Args:
        source: its storage and folder there.
        target: where the copy goes; the folder is made.
        config: `RunConfig.to_dict()` of the run that goes on from the copy.
    """
    (storage, folder), (target_storage, target_folder) = source, target
    target_storage.create_dir(target_folder, recursive=True)
    for name in FILES[:-1]:
        with (
            storage.open_input_stream(f"{folder}/{name}") as content,
            written_whole(target_storage, f"{target_folder}/{name}") as sink,
        ):
            shutil.copyfileobj(content, sink, COPY_BYTES)
    with storage.open_input_stream(f"{folder}/{STATE_FILE}") as content:
        head = json.loads(content.read())
    with written_whole(target_storage, f"{target_folder}/{STATE_FILE}") as sink:
        sink.write(json.dumps(head | {"config": config}, indent=2).encode())


def read_state(folder: Path) -> CheckpointState:
    """The state of a checkpoint in a local folder.

    Raises:
        UserError: no checkpoint there, or one of another format version.
    """
    path = folder / STATE_FILE
    if not path.is_file():
        raise UserError(f"{folder} is not a checkpoint: it has no {STATE_FILE}; give the folder of one checkpoint")
    return _parse_state(path.read_bytes(), str(folder))


def fetch_state(checkpoint: ray.train.Checkpoint) -> CheckpointState:
    """The state of a checkpoint anywhere, without its tensors."""
    return state_at(checkpoint.filesystem, checkpoint.path)


def fetch_history(checkpoint: ray.train.Checkpoint) -> list[dict[str, Any]]:
    """The rows logged up to a checkpoint anywhere."""
    with checkpoint.filesystem.open_input_stream(f"{checkpoint.path}/{HISTORY_FILE}") as source:
        return _parse_history(source.read(), checkpoint.path)


def state_at(storage: pafs.FileSystem, folder: str) -> CheckpointState:
    """As `fetch_state`, of a folder on a storage; Ray is not needed."""
    with storage.open_input_stream(f"{folder}/{STATE_FILE}") as source:
        return _parse_state(source.read(), folder)


def _parse_state(text: bytes, where: str) -> CheckpointState:
    try:
        head = json.loads(text)
        version = head["format_version"]
        if version != FORMAT_VERSION:
            raise UserError(
                f"{where} has checkpoint format {version}, this program reads {FORMAT_VERSION}; use that version"
            )
        return CheckpointState(
            position=Position(**head["position"]),
            config=head["config"],
            label_map=LabelMap.from_json(head["label_map"], where=f"the label map of {where}"),
            dataset=head["dataset"],
            frozen=head["frozen"],
            validation=head["validation"],
            fingerprint=head["fingerprint"],
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{where}/{STATE_FILE} is damaged: {error!r}; use another checkpoint") from error


def load_weights(folder: Path, network: nn.Module, *, frozen: str) -> None:
    """Put the trained tensors of a checkpoint into `network`, whose frozen weights have the fingerprint `frozen`.

    Raises:
        UserError: the checkpoint is damaged, or belongs to another model or to other frozen weights.
    """
    state = read_state(folder)
    weights = _load(folder / WEIGHTS_FILE)
    found = _fingerprint((folder / WEIGHTS_FILE).read_bytes())
    if found != state.fingerprint:
        raise UserError(
            f"{folder / WEIGHTS_FILE} is damaged: its fingerprint is {found} instead of {state.fingerprint}; "
            "use another checkpoint"
        )
    wanted = {name: p for name, p in network.named_parameters() if p.requires_grad}
    missing, unexpected = sorted(wanted.keys() - weights.keys()), sorted(weights.keys() - wanted.keys())
    shapes = [
        f"{name} {tuple(weights[name].shape)} instead of {tuple(wanted[name].shape)}"
        for name in sorted(wanted.keys() & weights.keys())
        if weights[name].shape != wanted[name].shape
    ]
    if missing or unexpected or shapes:
        raise UserError(
            f"the checkpoint {folder} belongs to another model: {len(missing)} names missing {missing[:3]}, "
            f"{len(unexpected)} unexpected {unexpected[:3]}, {len(shapes)} of other shape {shapes[:3]}; "
            "build the model from the checkpoint's own configuration (state.json)"
        )
    if frozen != state.frozen:
        raise UserError(
            f"the frozen experts have fingerprint {frozen}, the checkpoint {folder} was trained on {state.frozen}; "
            "give the same expert weights as in training (--weights.spatial, --weights.temporal)"
        )
    network.load_state_dict(weights, strict=False)


@dataclass(frozen=True, kw_only=True)
class SavedRun:
    """Everything in a checkpoint that a run needs to go on."""

    state: CheckpointState
    history: list[dict[str, Any]]
    tensors: dict[str, dict[str, Tensor]]
    """As `DeepSpeedStrategy.load_state` takes them."""


def read_run(folder: Path) -> SavedRun:
    """Everything in a local checkpoint folder.

    Raises:
        UserError: a file is missing or damaged.
    """
    tensors: dict[str, dict[str, Tensor]] = {"weights": _load(folder / WEIGHTS_FILE)}
    for key, tensor in _load(folder / OPTIMIZER_FILE).items():
        kind, name = key.split(".", 1)
        tensors.setdefault(kind, {})[name] = tensor
    return SavedRun(state=read_state(folder), history=read_history(folder), tensors=tensors)


def read_history(folder: Path) -> list[dict[str, Any]]:
    """The rows logged up to a checkpoint."""
    path = folder / HISTORY_FILE
    try:
        return _parse_history(path.read_bytes(), str(folder))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error}; the checkpoint is damaged, use another one") from error


def _parse_history(text: bytes, where: str) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in text.splitlines()]
    except ValueError as error:
        raise UserError(
            f"cannot read {where}/{HISTORY_FILE}: {error}; the checkpoint is damaged, use another one"
        ) from error


def _load(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"cannot read {path}: {error}; the checkpoint is damaged, use another one") from error


def _fingerprint(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
