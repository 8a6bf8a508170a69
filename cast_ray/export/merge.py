"""How a checkpoint and the experts that it was trained on become one safetensors file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from rich.console import Console
from torch import Tensor

from cast_ray.errors import UserError
from cast_ray.evaluation.trained import model_at
from cast_ray.export.contents import Contents, contents_of
from cast_ray.export.file import DTYPES, SUFFIX, write_file
from cast_ray.export.output import check_output, write_output
from cast_ray.weights.fingerprint import tensor_fingerprint
from cast_ray.weights.moved import MovedWeights

__all__ = ["ExportedFile", "export"]


@dataclass(frozen=True, kw_only=True)
class ExportedFile:
    """What was written."""

    contents: Contents
    checkpoint: str
    """The checkpoint's folder on its storage, or the exported file that was read."""
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

    Args:
        place: as for `cast_ray.evaluation.trained.model_at`.
        output: path or URI of the file.
        moved: where the run's weights are now.
        dtype: number format of the tensors, a key of `DTYPES`.
        force: replace a file that is there.
        console: where progress goes.

    Raises:
        UserError: no model, no place to write, weights that are missing or not those of the training, or numbers
            too large for the format.
    """
    check_output(output, suffix=SUFFIX, force=force)
    with console.status("") as status:
        status.update("looking for the model")
        model = model_at(place, moved)
        status.update(f"loading {model.place}")
        network = model.load(model.config)
        tensors = {name: parameter.detach() for name, parameter in network.named_parameters()}
        if dtype != "float32":
            tensors = _in_format(tensors, dtype)
        status.update("computing the fingerprint")
        contents = contents_of(model, tensors=tensor_fingerprint(tensors.items()))
    size = sum(tensor.nbytes for tensor in tensors.values())
    write_output(output, size, lambda sink, wrote: write_file(sink, contents, tensors, wrote=wrote), console)
    return ExportedFile(contents=contents, checkpoint=model.place, tensors=len(tensors), bytes=size)


def _in_format(tensors: Mapping[str, Tensor], dtype: str) -> dict[str, Tensor]:
    cast = {name: tensor.to(DTYPES[dtype]) for name, tensor in tensors.items()}
    for name, tensor in tensors.items():
        if not torch.equal(cast[name].isfinite(), tensor.isfinite()):
            raise UserError(
                f"{name} has values up to {tensor.abs().max():.3g}, too large for {dtype}; use --dtype bf16"
            )
    return cast
