"""How a frozen branch is tuned: a small bottleneck network beside or behind it."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from cast_ray.models.layers import new_linear

__all__ = ["BOTTLENECK", "Adapter"]

BOTTLENECK = 4
"""The adapter is this many times narrower than the tokens (CAST, arXiv 2311.18825, section 3)."""


class Adapter(nn.Module):
    """Linear D -> D/4, an activation, Linear D/4 -> D, optionally around a skip connection.

    The last layer starts at zero, so that a fresh adapter is the identity (with skip) or nothing (without).

    Args:
        width: D.
        skip: whether the input is added to the output.
        out_width: channels of the output; D by default, and needed to be D with a skip.
        activation: module class between the two layers.
        zero_start: False draws the last layer like the first.
    """

    def __init__(
        self,
        width: int,
        *,
        skip: bool,
        out_width: int | None = None,
        activation: Callable[[], nn.Module] = nn.GELU,
        zero_start: bool = True,
    ) -> None:
        super().__init__()
        middle = width // BOTTLENECK
        self.reduce = new_linear(width, middle)
        self.activation = activation()
        self.expand = new_linear(middle, width if out_width is None else out_width, std=0.0 if zero_start else 0.02)
        self.skip = skip

    def forward(self, x: Tensor) -> Tensor:
        adapted = self.expand(self.activation(self.reduce(x)))
        return x + adapted if self.skip else adapted

    def extra_repr(self) -> str:
        return f"skip={self.skip}"
