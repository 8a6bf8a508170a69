"""The command `cast-ray export`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

import tyro
from rich.console import Console

from cast_ray.command_line import parse
from cast_ray.errors import UserError
from cast_ray.export.contents import Contents
from cast_ray.export.merge import export
from cast_ray.weights.moved import MovedWeights

__all__ = ["main"]

DESCRIPTION = """Write a trained model into one file.

safetensors: experts, trained parts, class names, preprocessing; read it with cast_ray.export.load.load_exported, or
start another run from it with --weights.network. torch-export (.pt2) and onnx: a graph from uint8 frames (and samples
of sound) to logits, for programs without cast_ray; it is compared with the network before it is written. Examples:
cast-ray export runs/first --output model.safetensors;
cast-ray export runs/first --format onnx --output model.onnx;
cast-ray export model.safetensors --format torch-export --output model.pt2;
cast-ray export s3://bucket/runs/first/checkpoint_000007 --output s3://bucket/model.safetensors --dtype bf16
--weights.spatial /new/place/clip.safetensors"""


@dataclass(frozen=True, kw_only=True)
class Export:
    """Flags of `cast-ray export`."""

    model: Annotated[str, tyro.conf.Positional]
    """Folder or URI of a checkpoint or of a run, whose best checkpoint is taken; or a .safetensors file of this
    command."""
    output: Annotated[str, tyro.conf.arg(aliases=["-o"])]
    """File or URI to write; its name ends in .safetensors, .pt2 or .onnx."""
    format: Literal["safetensors", "torch-export", "onnx"] = "safetensors"
    """What to write."""
    dtype: Literal["float32", "bf16", "float16"] = "float32"
    """safetensors: number format. float32 gives exactly the logits of training, the others half of the size."""
    fold: bool = True
    """Graphs: leave out computations that no score depends on, and join layers; the same but for rounding."""
    force: bool = False
    """Replace a file that is there."""
    weights: MovedWeights = field(default_factory=MovedWeights)

    def __post_init__(self) -> None:
        if self.format != "safetensors" and self.dtype != "float32":
            raise UserError(f"--dtype {self.dtype} goes with --format safetensors only; a graph is written in float32")


def main(arguments: list[str]) -> int:
    """Run `cast-ray export` with the words behind it; returns the exit status.

    Raises:
        UserError: see `cast_ray.export.merge.export` and `cast_ray.export.graph_file.write_graph`.
    """
    settings = parse(
        Export,
        Export(model=tyro.MISSING, output=tyro.MISSING),
        description=DESCRIPTION,
        arguments=arguments,
        program="cast-ray export",
    )
    said = _tensors(settings) if settings.format == "safetensors" else _graph(settings)
    Console(soft_wrap=True).print(f"{settings.output}: {said}", markup=False, highlight=False)
    return 0


def _tensors(settings: Export) -> str:
    file = export(
        settings.model,
        settings.output,
        moved=settings.weights,
        dtype=settings.dtype,
        force=settings.force,
        console=Console(stderr=True),
    )
    size = f"{file.tensors} tensors, {file.bytes / 1e6:.1f} MB"
    return f"{_named(file.contents)}, {size} in {settings.dtype}, from {file.checkpoint}"


def _graph(settings: Export) -> str:
    # Imported here: a graph needs torch.export, which takes a second that tensors need not wait for.
    from cast_ray.export.agreement import BATCHES
    from cast_ray.export.graph_file import write_graph

    if settings.format == "safetensors":
        raise ValueError("safetensors are no graph")
    graph = write_graph(
        settings.model,
        settings.output,
        form=settings.format,
        moved=settings.weights,
        folded=settings.fold,
        force=settings.force,
        console=Console(stderr=True),
    )
    batches = ", ".join(map(str, BATCHES[:-1])) + f" and {BATCHES[-1]}"
    return (
        f"{_named(graph.contents)}, {settings.format}, {graph.bytes / 1e6:.1f} MB, from {graph.origin}; largest "
        f"difference from the network {graph.difference:.1e} (logits of batches of {batches})"
    )


def _named(contents: Contents) -> str:
    classes = ", ".join(f"{count} classes ({name})" for name, count in contents.label_map.num_classes.items())
    return f"{contents.model.name}, {classes}"
