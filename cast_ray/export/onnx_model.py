"""How a graph becomes an ONNX file that says what it takes, and a smaller one with weights in 8 bits."""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from cast_ray.errors import UserError
from cast_ray.export.onnx_session import OnnxSession

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from cast_ray.export.serving import Serving

__all__ = ["OnnxRunner", "check_extra", "check_size", "quantise_onnx", "write_onnx"]

LIBRARIES = ("onnx", "onnxscript", "onnxruntime")
LARGEST = 2**31 - 2**24
"""Bytes of weights that fit into one file: protobuf allows 2 GiB, with the graph itself."""


def check_extra() -> None:
    """Raise `UserError` if the libraries for ONNX are not installed."""
    missing = [name for name in LIBRARIES if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"ONNX needs {', '.join(missing)}, which are not installed; run pip install 'cast-ray[onnx]'")


def check_size(serving: Serving) -> None:
    """Raise `UserError` if the weights do not fit into one ONNX file."""
    size = sum(weight.nbytes for weight in serving.parameters())
    if size > LARGEST:
        raise UserError(f"the weights have {size / 2**30:.1f} GiB, one ONNX file holds 2; use --format torch-export")


def write_onnx(program: ExportedProgram, notes: Mapping[str, str], path: Path) -> None:
    """Write an ONNX file with the names of inputs and outputs that the network has.

    Args:
        program: traced by `cast_ray.export.graph.trace`.
        notes: entries of the file's metadata.
        path: of the file.
    """
    inputs, outputs = _names(program)
    with _quiet():
        converted = torch.onnx.export(program, dynamo=True, verbose=False, input_names=inputs, output_names=outputs)
    if converted is None:
        raise RuntimeError("torch.onnx.export returned nothing")
    model = converted.model_proto
    _clean(model)
    for key, text in notes.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, text
    path.write_bytes(model.SerializeToString())


class OnnxRunner:
    """An ONNX file, run by onnxruntime with tensors in and out.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self._session = OnnxSession(path)

    def __call__(self, media: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Outputs by name."""
        answers = self._session({name: medium.numpy() for name, medium in media.items()})
        return {name: torch.from_numpy(answer) for name, answer in answers.items()}


def quantise_onnx(source: Path, target: Path) -> None:
    """Write an ONNX file with the weights of linear layers in 8 bits; activations are rounded while it runs."""
    from onnxruntime.quantization import QuantType, quantize_dynamic  # type: ignore[import-untyped]

    with _quiet():
        # Not the convolutions: they are a hundredth of the work, and slower in 8 bits.
        quantize_dynamic(source, target, weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul", "Gemm"])


def _names(program: ExportedProgram) -> tuple[list[str], list[str]]:
    example = program.example_inputs
    if example is None or program.call_spec.out_spec is None:
        raise RuntimeError("the graph was traced without names")
    return list(example[1]), list(program.call_spec.out_spec.context)


def _clean(model: Any) -> None:
    """Call the free axis `batch`, and take away what tells about this machine and not about the network."""
    for value in (*model.graph.input, *model.graph.output):
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param:
                axis.dim_param = "batch"
    del model.graph.value_info[:]  # in terms of the axis' former name; whoever needs shapes infers them
    for described in (model.graph, *model.graph.node, *model.graph.input, *model.graph.output):
        del described.metadata_props[:]
    for node in model.graph.node:
        node.doc_string = ""


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what torch's converter and its libraries say to their own authors away from the terminal."""
    loggers = [logging.getLogger(name) for name in ("", "torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
