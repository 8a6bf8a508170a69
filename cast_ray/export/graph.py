"""How a network becomes a graph of `torch.export` for any number of clips, and a .pt2 file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from cast_ray.export.serving import Serving, random_media

__all__ = ["GraphRunner", "trace", "write_pt2"]

TRACED_CLIPS = 2
"""Clips in the batch that is traced: one would be taken for a constant."""


def trace(serving: Serving) -> ExportedProgram:
    """The graph of a network behind its preprocessing; the first axis of every input is free."""
    media = random_media(serving.network.spec, TRACED_CLIPS)
    batch = Dim("batch", min=1)
    program = torch.export.export(serving, (), media, dynamic_shapes={name: {0: batch} for name in media}, strict=False)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # paths on this machine, and half of the file
    return program


def write_pt2(program: ExportedProgram, notes: Mapping[str, str], path: Path) -> None:
    """Write a .pt2 file; `notes` become extra files `<name>.json` inside."""
    torch.export.save(program, path, extra_files={f"{name}.json": text for name, text in notes.items()})


class GraphRunner:
    """A .pt2 file, as torch runs it.

    Args:
        path: a file that this program has written itself: loading another could execute code.
    """

    def __init__(self, path: Path) -> None:
        self._module = torch.export.load(path).module()

    def __call__(self, media: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Outputs by name."""
        with torch.inference_mode():
            return self._module(**media)
