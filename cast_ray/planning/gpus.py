"""What the vendors say that their GPUs can do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from cast_ray.errors import UserError

__all__ = ["GPUS", "Gpu", "GpuName"]

GpuName = Literal["h200", "h100", "a100-80", "a100-40", "l40s", "l4", "v100-32"]


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One kind of GPU; rates are dense, without structured sparsity."""

    device: str
    """Part of the name by which PyTorch knows it."""
    memory: float
    """Bytes. Vendors' GB are taken as 10^9, because error correction and the driver take what is above that."""
    bf16: float | None
    """FLOP/s of matrix products in bf16; None: it has none."""
    fp16: float
    """Likewise in fp16."""
    float32: float
    """FLOP/s in float32 proper, which is PyTorch's default, not TF32."""
    bandwidth: float
    """Bytes per second between the GPU and its memory."""

    def flops(self, precision: str, name: str) -> float:
        """FLOP/s in a precision of `ScaleConfig`.

        Raises:
            UserError: the GPU does not have it.
        """
        if precision == "float32":
            return self.float32
        if precision == "fp16":
            return self.fp16
        if self.bf16 is None:
            raise UserError(
                f"scale.precision is {precision}, but a {name} has no such matrix units; use --scale.precision fp16 "
                "or another --gpu"
            )
        return self.bf16


GPUS: Mapping[GpuName, Gpu] = {
    "h200": Gpu(device="H200", memory=141e9, bf16=989e12, fp16=989e12, float32=67e12, bandwidth=4.8e12),
    "h100": Gpu(device="H100", memory=80e9, bf16=989e12, fp16=989e12, float32=67e12, bandwidth=3.35e12),
    "a100-80": Gpu(device="A100", memory=80e9, bf16=312e12, fp16=312e12, float32=19.5e12, bandwidth=2.04e12),
    "a100-40": Gpu(device="A100", memory=40e9, bf16=312e12, fp16=312e12, float32=19.5e12, bandwidth=1.56e12),
    "l40s": Gpu(device="L40S", memory=48e9, bf16=362e12, fp16=362e12, float32=91.6e12, bandwidth=0.864e12),
    "l4": Gpu(device="L4", memory=24e9, bf16=121e12, fp16=121e12, float32=30.3e12, bandwidth=0.3e12),
    "v100-32": Gpu(device="V100", memory=32e9, bf16=None, fp16=125e12, float32=15.7e12, bandwidth=0.9e12),
}
"""From the vendor's data sheets: SXM forms of H200, H100, A100 and V100. Half of the rates that are with sparsity."""
