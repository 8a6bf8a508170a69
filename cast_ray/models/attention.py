"""Which tokens see which: attention inside windows of the token grid.

Legend: B batch, T time steps (tubelets, U elsewhere), N and M tokens per step, D width, H heads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from cast_ray.models.spec import WindowName

__all__ = ["SPACE", "SPACE_TIME", "TIME", "WINDOWS", "Window", "windowed_attention"]


@dataclass(frozen=True, kw_only=True)
class Window:
    """The part of a [time, space] token grid that one attention covers, written as einops axes.

    `batch` and `tokens` are composed of b (clip), t (time step) and n (location within a step).
    """

    axes: tuple[str, ...]
    """Grid axes along which tokens attend to each other: 'time', 'space' or both."""
    batch: str
    tokens: str


TIME = Window(axes=("time",), batch="(b n)", tokens="t")
SPACE = Window(axes=("space",), batch="(b t)", tokens="n")
SPACE_TIME = Window(axes=("time", "space"), batch="b", tokens="(t n)")

WINDOWS: Mapping[WindowName, Window] = {"time": TIME, "space": SPACE, "space_time": SPACE_TIME}
"""Windows by the name they have in a specification."""


def windowed_attention(query: Tensor, key: Tensor, value: Tensor, *, window: Window, num_heads: int) -> Tensor:
    """Scaled dot-product attention of every window of `query` to the same window of `key` and `value`.

    Args:
        query: [B, T, N, D]
        key: [B, T', M, D]; T' = T for the window SPACE, M = N for the window TIME, any grid for SPACE_TIME.
        value: as `key`.
        window: which tokens form one attention.
        num_heads: number of heads, a divisor of D.

    Returns:
        [B, T, N, D]
    """
    _, steps, locations, _ = query.shape
    gather = f"b t n (h d) -> {window.batch} h {window.tokens} d"
    query, key, value = (rearrange(x, gather, h=num_heads) for x in (query, key, value))
    attended = F.scaled_dot_product_attention(query, key, value)
    scatter = f"{window.batch} h {window.tokens} d -> b t n (h d)"
    return rearrange(attended, scatter, t=steps, n=locations)
