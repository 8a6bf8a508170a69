"""How one variant of inference is prepared and measured, each in a process of its own.

Nothing heavy is imported at the top: a process that runs onnxruntime is to have no torch in its memory.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from cast_ray.bench.resident import reset_resident_peak, resident_now, resident_peak

if TYPE_CHECKING:
    from torch import nn

    from cast_ray.export.serving import Serving
    from cast_ray.models.network import Network

__all__ = ["VARIANTS", "Case", "Source", "Variant", "load_network", "measure", "prepare"]

Variant = Literal["float32", "folded", "bf16", "int8", "compiled", "onnx", "onnx-int8"]
VARIANTS: dict[Variant, str] = {
    "float32": "the network as it was trained",
    "folded": "without what no score depends on (cast_ray.export.fold); all that follow are folded too",
    "bf16": "weights and activations in bf16",
    "int8": "linear layers by torch's dynamic quantisation",
    "compiled": "torch.compile",
    "onnx": "the file of cast-ray export --format onnx in onnxruntime",
    "onnx-int8": "the same after onnxruntime's dynamic quantisation of linear layers",
}
"""Names of the variants, and what they are."""
Media = Mapping[str, NDArray[Any]]
Run = Callable[[Media], Mapping[str, NDArray[Any]]]


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a network comes from."""

    exported: str | None
    """File of `cast-ray export`; None: random weights."""
    model: str
    """Name of the model, for random weights."""
    num_classes: Mapping[str, int]
    image_size: int | None = None
    frames: int | None = None


@dataclass(frozen=True, kw_only=True)
class Case:
    """One measurement."""

    variant: Variant
    source: Source
    folder: Path
    """Has `<medium>.npy` [clips, ...] for every input; prepared files are put there."""
    batch: int
    warm_up: int
    steps: int
    threads: int | None
    answers: bool
    """Whether the logits of all clips are wanted."""


def load_network(source: Source) -> Network:
    """The network, on the CPU in float32 and evaluation mode; random weights are the same in every process."""
    import torch

    from cast_ray.bench.model import fill_zeros, spec_for
    from cast_ray.export.load import load_exported
    from cast_ray.models.assemble import assemble

    if source.exported is not None:
        return load_exported(source.exported).network.requires_grad_(False)
    torch.manual_seed(0)
    network = assemble(spec_for(source.model, image_size=source.image_size, frames=source.frames), source.num_classes)
    fill_zeros(network)
    return network.eval().requires_grad_(False)


def prepare(case: Case) -> dict[str, Any]:
    """Write the file that a variant of onnxruntime runs, if it is not there; returns its size in bytes."""
    from cast_ray.export.fold import fold
    from cast_ray.export.graph import trace
    from cast_ray.export.onnx_model import check_size, quantise_onnx, write_onnx
    from cast_ray.export.serving import Serving

    plain, target = case.folder / "onnx.onnx", case.folder / f"{case.variant}.onnx"
    if not plain.exists():
        serving = Serving(fold(load_network(case.source)))
        check_size(serving)
        write_onnx(trace(serving), {}, plain)
    if not target.exists():
        quantise_onnx(plain, target)
    return {"bytes": target.stat().st_size}


def measure(case: Case) -> dict[str, Any]:
    """Seconds by the clock and of the processor, memory, and logits if they are wanted.

    Memory is the largest resident set while batches run, in bytes, with the weights and the libraries.
    """
    media = _media(case.folder)
    if case.variant.startswith("onnx"):
        from cast_ray.export.onnx_session import OnnxSession

        run: Run = OnnxSession(case.folder / f"{case.variant}.onnx", threads=case.threads)
    else:
        run = _TorchRun(case)
    gc.collect()
    reset_resident_peak()
    at_rest = resident_now()
    batches = _cycle(media, case.batch)
    first = _timed(run, next(batches))
    for _ in range(case.warm_up):
        run(next(batches))
    timed = [_timed(run, next(batches)) for _ in range(case.steps)]
    result: dict[str, Any] = {
        "seconds": [wall for wall, _ in timed],
        "cpu_seconds": [cpu for _, cpu in timed],
        "first_seconds": first[0],
        "memory_at_rest": at_rest,
        "peak_memory": resident_peak(),
    }
    if case.answers:
        result["logits"] = _answers(run, media, case.batch)
    return result


class _TorchRun:
    """A variant that torch runs, as a function of arrays."""

    def __init__(self, case: Case) -> None:
        import torch

        if case.threads is not None:
            torch.set_num_threads(case.threads)
        self._module = _variant(case)

    def __call__(self, media: Media) -> dict[str, NDArray[Any]]:
        import torch

        with torch.inference_mode():
            logits = self._module(**{name: torch.from_numpy(array) for name, array in media.items()})
        return {name: scores.numpy() for name, scores in logits.items()}


def _variant(case: Case) -> nn.Module:
    import torch

    from cast_ray.export.fold import fold
    from cast_ray.export.serving import Serving

    network = load_network(case.source)
    if case.variant == "float32":
        return Serving(network)
    network = fold(network)
    if case.variant == "bf16":
        return Serving(network.to(torch.bfloat16), torch.bfloat16)
    serving = Serving(network)
    if case.variant == "compiled":
        return cast("nn.Module", torch.compile(serving))
    return _quantised(serving) if case.variant == "int8" else serving


def _quantised(serving: Serving) -> nn.Module:
    import warnings

    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.ao.quantization announces its successor, torchao
        return torch.ao.quantization.quantize_dynamic(serving, {torch.nn.Linear}, dtype=torch.qint8, inplace=True)


def _media(folder: Path) -> dict[str, NDArray[Any]]:
    return {file.stem: np.load(file, mmap_mode="r") for file in sorted(folder.glob("*.npy"))}


def _batch(media: Media, start: int, stop: int) -> dict[str, NDArray[Any]]:
    return {name: np.array(array[start:stop]) for name, array in media.items()}  # torch takes no read-only arrays


def _cycle(media: Media, batch: int) -> Iterator[dict[str, NDArray[Any]]]:
    """Whole batches, again and again; the clips must be at least one batch."""
    clips = len(next(iter(media.values())))
    while True:
        for start in range(0, clips - batch + 1, batch):
            yield _batch(media, start, start + batch)


def _timed(run: Run, media: Media) -> tuple[float, float]:
    cpu, wall = time.process_time(), time.perf_counter()
    run(media)
    return time.perf_counter() - wall, time.process_time() - cpu


def _answers(run: Run, media: Media, batch: int) -> dict[str, NDArray[Any]]:
    clips = len(next(iter(media.values())))
    parts = [run(_batch(media, start, min(start + batch, clips))) for start in range(0, clips, batch)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
