"""The command `cast-ray export`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

import tyro
from rich.console import Console

from cast_ray.command_line import parse
from cast_ray.export.merge import MovedWeights, export

__all__ = ["main"]

DESCRIPTION = """Write a trained model into one safetensors file: experts, trained parts, class names, preprocessing.

Read it with cast_ray.export.load.load_exported, or start another run from it with --weights.network. Examples:
cast-ray export runs/first --output model.safetensors;
cast-ray export s3://bucket/runs/first/checkpoint_000007 --output s3://bucket/model.safetensors --dtype bf16
--weights.spatial /new/place/clip.safetensors"""


@dataclass(frozen=True, kw_only=True)
class Export:
    """Flags of `cast-ray export`."""

    checkpoint: Annotated[str, tyro.conf.Positional]
    """Folder or URI of a checkpoint, or of a run, whose best checkpoint is taken."""
    output: str
    """File or URI to write; its name ends in .safetensors."""
    dtype: Literal["float32", "bf16", "float16"] = "float32"
    """Number format of the tensors. float32 gives exactly the logits of training, the others half of the size."""
    force: bool = False
    """Replace a file that is there."""
    weights: MovedWeights = field(default_factory=MovedWeights)


def main(arguments: list[str]) -> int:
    """Run `cast-ray export` with the words behind it; returns the exit status.

    Raises:
        UserError: see `cast_ray.export.merge.export`.
    """
    settings = parse(
        Export,
        Export(checkpoint=tyro.MISSING, output=tyro.MISSING),
        description=DESCRIPTION,
        arguments=arguments,
        program="cast-ray export",
    )
    file = export(
        settings.checkpoint,
        settings.output,
        moved=settings.weights,
        dtype=settings.dtype,
        force=settings.force,
        console=Console(stderr=True),
    )
    classes = ", ".join(f"{count} classes ({name})" for name, count in file.contents.label_map.num_classes.items())
    Console(soft_wrap=True).print(
        f"{settings.output}: {file.contents.model.name}, {classes}, {file.tensors} tensors, {file.bytes / 1e6:.1f} MB "
        f"in {settings.dtype}, from {file.checkpoint}",
        markup=False,
        highlight=False,
    )
    return 0
