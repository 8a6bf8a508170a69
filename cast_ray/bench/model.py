"""How fast a model infers and trains in one variant: batch size, precision, eager or compiled."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from cast_ray.bench.device import matmul_rate, peak_memory, reset_peak_memory, timed
from cast_ray.bench.plain import PlainAdamW
from cast_ray.data.inputs import in_precision
from cast_ray.errors import UserError
from cast_ray.models.assemble import assemble
from cast_ray.models.costs import input_shapes
from cast_ray.models.named import NAMED
from cast_ray.models.spec import HAS_AUDIO, NetworkSpec
from cast_ray.training.losses import soft_cross_entropy

__all__ = ["VARIANTS", "Job", "fill_zeros", "measure", "spec_for"]

DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16}
VARIANTS = tuple(f"{mode}-{precision}" for precision in DTYPES for mode in ("eager", "compiled"))
"""Names of the variants: how the network runs, and in which precision."""

LEARNING_RATE = 1e-4


@dataclass(frozen=True, kw_only=True)
class Job:
    """One measurement."""

    model: str
    variant: str
    batch: int
    device: str = "cpu"
    num_classes: Mapping[str, int]
    image_size: int | None = None
    """Pixels; None: what the model is named for."""
    frames: int | None = None
    """Frames of a clip; None: what the model is named for."""
    train_experts: bool | None = None
    """None: only where they have no adapters."""
    checkpoint_activations: bool = False
    warm_up: int = 2
    """Passes before the clock runs; the first one compiles."""
    steps: int = 5
    """Timed passes."""
    threads: int | None = None
    """Threads of PyTorch on a CPU; None: its default."""

    @property
    def compiled(self) -> bool:
        return self.variant.startswith("compiled-")

    @property
    def dtype(self) -> torch.dtype:
        return DTYPES[self.precision]

    @property
    def precision(self) -> str:
        return self.variant.partition("-")[2]


def spec_for(model: str, *, image_size: int | None, frames: int | None) -> NetworkSpec:
    """The named model at the size asked for.

    Raises:
        UserError: there is no such model, or it cannot have that size.
    """
    if model not in NAMED:
        raise UserError(f"--model is '{model}'; `cast-ray models` lists the {len(NAMED)} names")
    spec = NAMED[model]
    return replace(spec, video=spec.video.resized(image_size=image_size, num_frames=frames))


def measure(job: Job) -> dict[str, Any]:
    """Time and memory of inference and of training steps, and the device's rate of matrix products in this precision.

    A training step is what training does, on one batch of random clips that is there already: forward, cross-entropy,
    backward, AdamW on what trains. Under bf16 all weights are bf16 and AdamW keeps float32 copies of those that train.
    """
    if job.threads is not None:
        torch.set_num_threads(job.threads)
    torch.manual_seed(0)
    device = torch.device(job.device)
    spec = spec_for(job.model, image_size=job.image_size, frames=job.frames)
    rate = matmul_rate(device, job.dtype)
    network = assemble(spec, job.num_classes)
    fill_zeros(network)
    network = network.to(device=device, dtype=job.dtype)
    network.freeze(spec.trains_whole if job.train_experts is None else job.train_experts)
    network.set_grad_checkpointing(job.checkpoint_activations)
    inputs = in_precision(_inputs(spec, job.batch, device), job.dtype)
    call = torch.compile(network) if job.compiled else network
    network.eval()
    inference = _time(job, device, lambda: _infer(call, inputs))
    network.train()
    step = _TrainingStep(network, call, inputs, job.num_classes, batch=job.batch, device=device)
    training = _time(job, device, step)
    if not torch.isfinite(step.loss):
        raise RuntimeError(f"the loss became {step.loss.item()}; a step that diverges says nothing about speed")
    return {
        "matmul_multiply_adds_per_second": max(rate, matmul_rate(device, job.dtype)),
        "threads": torch.get_num_threads() if device.type == "cpu" else None,
        "inference": inference,
        "training": training,
    }


def _infer(network: Callable[..., dict[str, Tensor]], inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    with torch.inference_mode():
        return network(inputs)


class _TrainingStep:
    """Forward, loss, backward and update, on the same batch every time."""

    def __init__(
        self,
        network: nn.Module,
        call: Callable[..., dict[str, Tensor]],
        inputs: Mapping[str, Tensor],
        num_classes: Mapping[str, int],
        *,
        batch: int,
        device: torch.device,
    ) -> None:
        self.call = call
        self.inputs = inputs
        self.targets = {
            field: torch.randn(batch, count, device=device).softmax(dim=1) for field, count in num_classes.items()
        }
        self.valid = torch.ones(batch, dtype=torch.bool, device=device)
        weights = [weight for weight in network.parameters() if weight.requires_grad]
        self.optimizer = PlainAdamW([{"params": weights}], fused=device.type == "cuda", lr=LEARNING_RATE)
        self.loss = torch.zeros(())

    def __call__(self) -> None:
        loss = soft_cross_entropy(self.call(self.inputs), self.targets, self.valid)
        loss.backward()
        self.optimizer.step()
        self.loss = loss.detach()


def _time(job: Job, device: torch.device, action: Callable[[], object]) -> dict[str, Any]:
    """Run an action a few times; its peak memory is that of all passes, its speed that of the best."""
    reset_peak_memory(device)
    at_rest = peak_memory(device)
    before = [timed(device, action) for _ in range(job.warm_up)]
    seconds = [timed(device, action) for _ in range(job.steps)]
    return {
        "clips_per_second": job.batch / min(seconds),
        "best_seconds": min(seconds),
        "median_seconds": statistics.median(seconds),
        "first_seconds": before[0] if before else seconds[0],
        "memory_at_rest": at_rest,
        "peak_memory": peak_memory(device),
    }


def fill_zeros(network: nn.Module) -> None:
    """Replace matrices that start at zero: a product with zeros can run faster than one with numbers."""
    for weight in network.parameters():
        if weight.ndim > 1 and not weight.any():
            nn.init.trunc_normal_(weight, std=0.02)


def _inputs(spec: NetworkSpec, batch: int, device: torch.device) -> dict[str, Tensor]:
    return {
        name: torch.ones(batch, dtype=torch.bool, device=device)
        if name == HAS_AUDIO
        else torch.randn(batch, *shape, device=device)
        for name, shape in input_shapes(spec).items()
    }
