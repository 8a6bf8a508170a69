"""How a checkpoint and the experts that it was trained on become one file."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs
import torch
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from cast_ray.config import ModelConfig, RunConfig, WeightsConfig
from cast_ray.data.storage import check_writable, filesystem, retried, written_whole
from cast_ray.errors import UserError
from cast_ray.export.contents import Contents, contents_of
from cast_ray.export.fetch import find_checkpoint, local_weights
from cast_ray.export.file import DTYPES, SUFFIX, write_file
from cast_ray.models.named import trains_experts
from cast_ray.training.build import build_network
from cast_ray.training.checkpoint import load_weights, read_state
from cast_ray.weights.fingerprint import tensor_fingerprint
from cast_ray.weights.hub import locate

__all__ = ["ExportedFile", "MovedWeights", "export"]


@dataclass(frozen=True, kw_only=True)
class MovedWeights:
    """Where weights are now that a run had elsewhere."""

    spatial: str | None = None
    """Weights of the spatial expert, if not where the run had them."""
    temporal: str | None = None
    """Weights of the temporal expert, likewise."""
    audio: str | None = None
    """Weights of the audio expert, likewise."""
    network: str | None = None
    """The whole network that the run started from, likewise."""
    folder: str | None = None
    """Where weights with names lie, likewise."""

    def given(self) -> dict[str, Any]:
        """What is given, by field."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class ExportedFile:
    """What was written."""

    contents: Contents
    checkpoint: str
    """The checkpoint's folder on its storage."""
    tensors: int
    bytes: int
    """Of the tensors."""


def export(
    place: str,
    output: str,
    *,
    moved: MovedWeights,
    dtype: str = "float32",
    force: bool = False,
    console: Console,
) -> ExportedFile:
    """Write all weights of a trained model into one safetensors file, which appears when it is complete.

    A checkpoint of a run with a moving average holds the averaged weights, and so does the file.

    Args:
        place: path or URI of a checkpoint, or of a run, whose best checkpoint is taken.
        output: path or URI of the file.
        moved: where the run's weights are now.
        dtype: number format of the tensors, a key of `DTYPES`.
        force: replace a file that is there.
        console: where progress goes.

    Raises:
        UserError: no checkpoint, no place to write, weights that are missing or not those of the training, or numbers
            too large for the format.
    """
    _check_output(output, force=force)
    with console.status("looking for the checkpoint") as status:
        storage, folder = find_checkpoint(place)
        status.update(f"reading {folder}")
        with local_weights(storage, folder) as local:
            state = read_state(local)
            config = RunConfig.from_dict(state.config)
            weights = _weights(config.model, config.weights, moved)
            status.update("building the network")
            network, frozen = build_network(config.model, weights, state.label_map, seed=config.seed)
            load_weights(local, network, frozen=frozen)
        status.update("computing the fingerprint")
        tensors = _in_format({name: x.detach() for name, x in network.named_parameters()}, dtype)
        contents = contents_of(config, state, tensors=tensor_fingerprint(tensors.items()))
    _write(output, contents, tensors, console)
    size = sum(tensor.nbytes for tensor in tensors.values())
    return ExportedFile(contents=contents, checkpoint=folder, tensors=len(tensors), bytes=size)


def _check_output(output: str, *, force: bool) -> None:
    """Raise `UserError` if the file cannot be written, before minutes of work."""
    remote = "://" in output
    place, mark, options = output.partition("?") if remote else (output, "", "")
    if not place.endswith(SUFFIX):
        raise UserError(f"--output is '{output}'; give a name that ends in {SUFFIX}")
    if remote and "/" not in place.split("://", 1)[1]:
        raise UserError(f"--output '{output}' names no file in a bucket; give one such as s3://bucket/model{SUFFIX}")
    storage, path = filesystem(output)
    kind = retried(lambda: storage.get_file_info(path), what=output).type
    if kind == pafs.FileType.Directory:
        raise UserError(f"--output '{output}' is a folder; give the name of a file")
    if kind == pafs.FileType.File and not force:
        raise UserError(f"--output '{output}' is there already; give another name, or --force to replace it")
    check_writable(f"{place.rpartition('/')[0]}{mark}{options}" if remote else str(Path(path).parent))


def _weights(model: ModelConfig, weights: WeightsConfig, moved: MovedWeights) -> WeightsConfig:
    """Where the frozen weights come from; raises `UserError` with the flag to give if they are not there."""
    given = moved.given()
    if trains_experts(model):
        if given:
            raise UserError(
                f"--weights.{next(iter(given))} is given, but the run trained its experts, and the checkpoint holds "
                "all weights; leave it away"
            )
        return WeightsConfig()
    had = weights.sources() | ({} if weights.network is None else {"network": weights.network})
    for name in given:
        if name != "folder" and name not in had:
            raise UserError(f"--weights.{name} is given, but the run read no such weights, only {had}; leave it away")
    now = dataclasses.replace(weights, **given)
    for name, source in (had | {key: value for key, value in given.items() if key != "folder"}).items():
        try:
            locate(source, None if now.folder is None else Path(now.folder))
        except UserError as error:
            raise UserError(
                f"weights.{name}, on which the checkpoint was trained, cannot be found: {error}. If it is elsewhere "
                f"now, give --weights.{name} PATH"
            ) from error
    return now


def _in_format(tensors: Mapping[str, Tensor], dtype: str) -> dict[str, Tensor]:
    cast = {name: tensor.to(DTYPES[dtype]) for name, tensor in tensors.items()}
    for name, tensor in tensors.items():
        if not torch.equal(cast[name].isfinite(), tensor.isfinite()):
            raise UserError(
                f"{name} has values up to {tensor.abs().max():.3g}, too large for {dtype}; use --dtype bf16"
            )
    return cast


def _write(output: str, contents: Contents, tensors: Mapping[str, Tensor], console: Console) -> None:
    storage, path = filesystem(output)
    total = sum(tensor.nbytes for tensor in tensors.values())
    columns = TextColumn("writing"), BarColumn(), DownloadColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=total)

        def write() -> None:
            with written_whole(storage, path) as sink:
                write_file(sink, contents, tensors, wrote=lambda size: progress.advance(task, size))

        retried(write, what=output, before_retry=lambda: progress.reset(task))
