"""How a frozen branch is tuned: a small bottleneck network beside or behind it."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Adapter"]

BOTTLENECK = 4
"""The adapter is this many times narrower than the tokens (CAST, arXiv 2311.18825, section 3)."""


class Adapter(nn.Module):
    """Linear D -> D/4, GELU, Linear D/4 -> D, optionally around a skip connection.

    The last layer starts at zero, so that a fresh adapter is the identity (with skip) or nothing (without).
    """

    def __init__(self, width: int, *, skip: bool) -> None:
        super().__init__()
        self.reduce = nn.Linear(width, width // BOTTLENECK)
        self.expand = nn.Linear(width // BOTTLENECK, width)
        self.skip = skip
        nn.init.trunc_normal_(self.reduce.weight, std=0.02)
        nn.init.zeros_(self.reduce.bias)
        nn.init.zeros_(self.expand.weight)
        nn.init.zeros_(self.expand.bias)

    def forward(self, x: Tensor) -> Tensor:
        adapted = self.expand(F.gelu(self.reduce(x)))
        return x + adapted if self.skip else adapted

    def extra_repr(self) -> str:
        return f"skip={self.skip}"
