"""What experts tell each other between attention and feed-forward: bottleneck cross-attention.

CAST, arXiv 2311.18825, section 3.2, equations 7 and 8, table 3.
Legend: B batch, T time steps, S special tokens, N patches per step, D width, R reduced width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from timm.layers import DropPath
from torch import Tensor, nn

from cast_ray.models.attention import Window, windowed_attention
from cast_ray.models.experts.expert import TokenLayout

__all__ = ["BottleneckExchange", "Exchange"]

NORM_EPS = 1e-6


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """One direction of talk: patches of `target` query patches of `source` inside `window`."""

    source: str
    target: str
    window: Window

    @property
    def name(self) -> str:
        return f"{self.source}_to_{self.target}"


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
    """Multi-head attention from target patches [B, T, N, R] to source patches, both with positions of their own."""

    def __init__(self, window: Window, *, target: TokenLayout, source: TokenLayout, width: int, num_heads: int) -> None:
        super().__init__()
        self.window = window
        self.num_heads = num_heads
        position_std = (width // num_heads) ** -0.5
        self.target_positions = Positions(target, window, width, std=position_std)
        self.source_positions = Positions(source, window, width, std=position_std)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.project = nn.Linear(width, width)
        for linear in (self.query, self.key_value, self.project):
            nn.init.trunc_normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)

    def forward(self, target: Tensor, source: Tensor) -> Tensor:
        query = self.query(self.target_positions(target))
        # Positions enter before the projection, so the values carry them too.
        key, value = self.key_value(self.source_positions(source)).chunk(2, dim=-1)
        return self.project(windowed_attention(query, key, value, window=self.window, num_heads=self.num_heads))


class BottleneckExchange(nn.Module):
    """All exchanges of one block. They read the same inputs; each result is added to its target with drop path.

    Every expert involved has one reduction (linear, norm) that its exchanges share, every target one expansion that
    starts at zero, so a fresh exchange changes nothing. Special tokens of the target skip the attention: they pass
    reduction, activation and expansion only.

    Args:
        exchanges: the directions; names must be distinct.
        layouts: token layout of each expert by name.
        width: D.
        down_ratio: D / R.
        num_heads: attention heads at width R.
        drop_path: chance of dropping a whole update, per clip.

    Raises:
        ValueError: a window needs equal grids on both sides and they differ.
    """

    def __init__(
        self,
        exchanges: Sequence[Exchange],
        *,
        layouts: Mapping[str, TokenLayout],
        width: int,
        down_ratio: int,
        num_heads: int,
        drop_path: float,
    ) -> None:
        super().__init__()
        for exchange in exchanges:
            _check_grids(exchange, layouts)
        reduced = width // down_ratio
        involved = sorted({name for exchange in exchanges for name in (exchange.source, exchange.target)})
        targets = sorted({exchange.target for exchange in exchanges})
        self.exchanges = tuple(exchanges)
        self.special = {name: layouts[name].special for name in involved}
        self.reduce = nn.ModuleDict({name: _Reduce(width, reduced) for name in involved})
        self.attention = nn.ModuleDict(
            {
                exchange.name: CrossAttention(
                    exchange.window,
                    target=layouts[exchange.target],
                    source=layouts[exchange.source],
                    width=reduced,
                    num_heads=num_heads,
                )
                for exchange in exchanges
            }
        )
        self.expand = nn.ModuleDict({name: _expansion(reduced, width) for name in targets})
        self.drop_path = DropPath(drop_path)

    def forward(self, tokens: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tokens [B, T, S + N, D] of every expert, before to after the exchange."""
        special, patches = {}, {}
        for name, reduce in self.reduce.items():
            reduced = reduce(tokens[name])
            special[name], patches[name] = reduced[:, :, : self.special[name]], reduced[:, :, self.special[name] :]
        updated = dict(tokens)
        for exchange in self.exchanges:
            attended = self.attention[exchange.name](patches[exchange.target], patches[exchange.source])
            hidden = F.gelu(torch.cat([special[exchange.target], attended], dim=2))
            update = self.expand[exchange.target](hidden)
            updated[exchange.target] = updated[exchange.target] + self.drop_path(update)
        return updated


class _Reduce(nn.Module):
    """Linear D -> R and a norm."""

    def __init__(self, width: int, reduced: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, reduced)
        self.norm = nn.LayerNorm(reduced, eps=NORM_EPS)
        nn.init.trunc_normal_(self.linear.weight, std=0.02)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.linear(x))


def _expansion(reduced: int, width: int) -> nn.Linear:
    linear = nn.Linear(reduced, width)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear


def _check_grids(exchange: Exchange, layouts: Mapping[str, TokenLayout]) -> None:
    target, source = layouts[exchange.target], layouts[exchange.source]
    if "time" not in exchange.window.axes and target.steps != source.steps:
        raise ValueError(f"{exchange.name} attends within a time step, but the experts have {target} and {source}")
    if "space" not in exchange.window.axes and target.patches != source.patches:
        raise ValueError(f"{exchange.name} attends within a location, but the experts have {target} and {source}")
