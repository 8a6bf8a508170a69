"""What experts tell each other between attention and feed-forward: bottleneck cross-attention and its alternatives.

CAST, arXiv 2311.18825, section 3.2, equations 7 and 8, tables 1b, 1c and 3.
Legend: B batch, T time steps, S special tokens, N patches per step, D width, R reduced width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cast_ray.errors import UserError
from cast_ray.models.attention import WINDOWS, Window, windowed_attention
from cast_ray.models.experts.adapter import Adapter
from cast_ray.models.experts.expert import TokenLayout
from cast_ray.models.layers import new_linear
from cast_ray.models.spec import Direction, ExchangeSpec

__all__ = ["CrossAttention", "Side", "bottleneck_width", "check_grids", "enter", "leave", "talk"]

NORM_EPS = 1e-6


@dataclass(frozen=True, kw_only=True)
class Side:
    """One end of a direction: the tokens' layout, and the attention heads that suit their width."""

    layout: TokenLayout
    num_heads: int


class Positions(nn.Module):
    """Adds one learned table per axis of the window to [B, T, N, R] tokens."""

    def __init__(self, layout: TokenLayout, window: Window, width: int, *, std: float) -> None:
        super().__init__()
        self.time = nn.Parameter(std * torch.randn(layout.steps, width)) if "time" in window.axes else None
        self.space = nn.Parameter(std * torch.randn(layout.patches, width)) if "space" in window.axes else None

    def forward(self, x: Tensor) -> Tensor:
        if self.time is not None:
            x = x + self.time[:, None]
        if self.space is not None:
            x = x + self.space
        return x


class CrossAttention(nn.Module):
    """Multi-head attention from target patches [B, T, N, R] to source patches [B, T', M, R'], inside a window.

    Args:
        direction: names the window.
        target, source: the two sides; tables of positions are made for their grids.
        target_width, source_width: R and R'.
        num_heads: attention heads at width R.
        learned: whether both sides have tables of positions.
        zero_start: whether the output projection starts at zero.
    """

    def __init__(
        self,
        direction: Direction,
        *,
        target: TokenLayout,
        source: TokenLayout,
        target_width: int,
        source_width: int,
        num_heads: int,
        learned: bool,
        zero_start: bool,
    ) -> None:
        super().__init__()
        self.window = WINDOWS[direction.window]
        self.num_heads = num_heads
        std = (target_width // num_heads) ** -0.5
        self.target_positions = Positions(target, self.window, target_width, std=std) if learned else nn.Identity()
        self.source_positions = Positions(source, self.window, source_width, std=std) if learned else nn.Identity()
        self.query = new_linear(target_width, target_width)
        self.key_value = new_linear(source_width, 2 * target_width)
        self.project = new_linear(target_width, target_width, std=0.0 if zero_start else 0.02)

    def forward(self, target: Tensor, source: Tensor) -> Tensor:
        query = self.query(self.target_positions(target))
        # Positions enter before the projection, so the values carry them too.
        key, value = self.key_value(self.source_positions(source)).chunk(2, dim=-1)
        return self.project(windowed_attention(query, key, value, window=self.window, num_heads=self.num_heads))


class Lateral(nn.Module):
    """A linear map of the source's patches, to be added to the target's patches at the same place; starts at zero."""

    def __init__(self, target_width: int, source_width: int) -> None:
        super().__init__()
        self.project = new_linear(source_width, target_width, std=0.0)

    def forward(self, target: Tensor, source: Tensor) -> Tensor:
        return self.project(source)


class Reduce(nn.Module):
    """Into the bottleneck: linear D -> R and a norm."""

    def __init__(self, width: int, reduced: int) -> None:
        super().__init__()
        self.linear = new_linear(width, reduced)
        self.norm = nn.LayerNorm(reduced, eps=NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.linear(x))


class Expand(nn.Linear):
    """Out of the bottleneck: GELU and a linear map R -> D that starts at zero, so a fresh exchange changes nothing."""

    def __init__(self, reduced: int, width: int) -> None:
        super().__init__(reduced, width)
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.gelu(x))


def bottleneck_width(spec: ExchangeSpec, sides: Mapping[str, Side]) -> tuple[int, int]:
    """R of an exchange and its attention heads: both come from the narrowest of the experts involved.

    Raises:
        UserError: the widths do not divide.
    """
    narrowest = min((sides[name] for name in spec.experts), key=lambda side: side.layout.width)
    width, heads = narrowest.layout.width, narrowest.num_heads
    if width % spec.down_ratio or (width // spec.down_ratio) % heads:
        raise UserError(
            f"width {width} / down_ratio {spec.down_ratio} = {width / spec.down_ratio:g} is not a multiple of "
            f"{heads} attention heads; change one of the three"
        )
    return width // spec.down_ratio, heads


def enter(spec: ExchangeSpec, name: str, sides: Mapping[str, Side]) -> nn.Module:
    """What the tokens of expert `name` pass before they meet another expert's."""
    width = sides[name].layout.width
    if spec.kind == "bottleneck":
        return Reduce(width, bottleneck_width(spec, sides)[0])
    return nn.Identity() if spec.kind == "lateral" else nn.LayerNorm(width, eps=NORM_EPS)


def talk(spec: ExchangeSpec, direction: Direction, sides: Mapping[str, Side]) -> nn.Module:
    """How patches of one expert read those of the other."""
    target, source = sides[direction.target], sides[direction.source]
    if spec.kind == "lateral":
        return Lateral(target.layout.width, source.layout.width)
    widths, heads = (target.layout.width, source.layout.width), target.num_heads
    if spec.kind == "bottleneck":
        reduced, heads = bottleneck_width(spec, sides)
        widths = reduced, reduced
    return CrossAttention(
        direction,
        target=target.layout,
        source=source.layout,
        target_width=widths[0],
        source_width=widths[1],
        num_heads=heads,
        learned=spec.positions == "learned",
        zero_start=spec.kind == "attention",
    )


def leave(spec: ExchangeSpec, name: str, sides: Mapping[str, Side]) -> nn.Module | None:
    """What special tokens of expert `name` and answers to its patches pass before they are added; None for nothing."""
    width = sides[name].layout.width
    if spec.kind == "bottleneck":
        return Expand(bottleneck_width(spec, sides)[0], width)
    return Adapter(width, skip=False) if spec.kind == "attention_adapter" else None


def check_grids(spec: ExchangeSpec, sides: Mapping[str, Side]) -> None:
    """Raise `UserError` if a window, or a lateral connection, needs equal grids and the experts' differ."""
    lateral = spec.kind == "lateral"
    talks, remedy = ("adds", "use another kind of exchange") if lateral else ("attends", "use the window space_time")
    for direction in spec.directions:
        target, source = sides[direction.target].layout, sides[direction.source].layout
        axes = () if lateral else WINDOWS[direction.window].axes
        if "time" not in axes and target.steps != source.steps:
            raise UserError(
                f"{direction.name} {talks} within a time step, but the experts have {target.steps} and {source.steps} "
                f"steps; {remedy}"
            )
        if "space" not in axes and target.patches != source.patches:
            raise UserError(
                f"{direction.name} {talks} within a location, but the experts have {target.patches} and "
                f"{source.patches} patches; {remedy}"
            )
