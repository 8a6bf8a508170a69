"""How a trained model becomes a graph file for programs without cast_ray: .pt2 or ONNX."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console

from cast_ray.evaluation.trained import model_at
from cast_ray.export.agreement import largest_difference
from cast_ray.export.contents import Contents, contents_of
from cast_ray.export.fold import fold
from cast_ray.export.graph import GraphRunner, trace, write_pt2
from cast_ray.export.onnx_model import OnnxRunner, check_extra, check_size, write_onnx
from cast_ray.export.output import check_output, copy_output
from cast_ray.export.serving import Serving, notes_of
from cast_ray.weights.fingerprint import tensor_fingerprint
from cast_ray.weights.moved import MovedWeights

__all__ = ["GRAPH_SUFFIXES", "GraphFormat", "WrittenGraph", "write_graph"]

GraphFormat = Literal["torch-export", "onnx"]
GRAPH_SUFFIXES: dict[GraphFormat, str] = {"torch-export": ".pt2", "onnx": ".onnx"}
"""How the names of the files end."""


@dataclass(frozen=True, kw_only=True)
class WrittenGraph:
    """What was written."""

    contents: Contents
    origin: str
    """The checkpoint's folder, or the exported file that was read."""
    bytes: int
    difference: float
    """Largest difference of its logits from those of the network."""


def write_graph(
    place: str,
    output: str,
    *,
    form: GraphFormat,
    moved: MovedWeights | None = None,
    folded: bool = True,
    force: bool = False,
    console: Console,
) -> WrittenGraph:
    """Write a trained model as a graph, which appears when it is complete and agrees with the network.

    Args:
        place: as for `cast_ray.evaluation.trained.model_at`.
        output: path or URI of the file.
        form: its format.
        moved: where the run's weights are now.
        folded: whether computations that change nothing are left out, see `cast_ray.export.fold`.
        force: replace a file that is there.
        console: where progress goes.

    Raises:
        UserError: no model, no place to write, missing libraries, or a graph that differs from the network.
    """
    if form == "onnx":
        check_extra()
    check_output(output, suffix=GRAPH_SUFFIXES[form], force=force)
    with console.status("") as status, tempfile.TemporaryDirectory() as folder:
        status.update("looking for the model")
        model = model_at(place, moved)
        status.update(f"loading {model.place}")
        network = model.load(model.config)
        contents = contents_of(model, tensors=tensor_fingerprint(network.named_parameters()))
        serving = Serving(network)
        if form == "onnx":
            check_size(serving)
        status.update("tracing the network")
        program = trace(Serving(fold(network)) if folded else serving)
        file = Path(folder) / f"model{GRAPH_SUFFIXES[form]}"
        status.update(f"converting it to {form}")
        write, runner = (write_onnx, OnnxRunner) if form == "onnx" else (write_pt2, GraphRunner)
        write(program, notes_of(contents, network.spec), file)
        status.update("comparing it with the network")
        difference = largest_difference(serving, runner(file), what=f"the {form} graph")
        status.stop()
        copy_output(output, file, console)
        size = file.stat().st_size
    return WrittenGraph(contents=contents, origin=model.place, bytes=size, difference=difference)
