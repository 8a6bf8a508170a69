"""How torch alone trains: AdamW on float32 weights, or on float32 copies of weights in another precision."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

__all__ = ["PlainAdamW"]


class PlainAdamW:
    """torch's AdamW; weights in bf16 have float32 copies, as in every training in mixed precision.

    Args:
        groups: parameter groups as `torch.optim.AdamW` takes them, of weights of one precision.
        fused: one kernel for all weights.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], *, fused: bool, lr: float) -> None:
        self._weights: list[Tensor] = []
        self.full: list[Tensor] = []
        """The float32 weights that AdamW updates."""
        copied = []
        for group in groups:
            full = [weight.detach().float() for weight in group["params"]]  # the weights themselves, if float32
            self._weights += group["params"]
            self.full += full
            copied.append({**group, "params": full})
        self.optimizer = torch.optim.AdamW(copied, lr=lr, fused=fused)

    def step(self) -> None:
        """Update the weights from their gradients, and forget those."""
        for weight, full in zip(self._weights, self.full, strict=True):
            full.grad = None if weight.grad is None else weight.grad.float()
            weight.grad = None
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self._weights[0].dtype != torch.float32:
            torch._foreach_copy_([weight.detach() for weight in self._weights], self.full)
