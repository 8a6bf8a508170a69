"""What one transformer block of an expert does, and where its adapters sit.

Legend: B batch, T time steps, S special tokens per step, N patches per step, D width.
"""

from __future__ import annotations

import torch
from timm.layers import DropPath
from torch import Tensor, nn

from cast_ray.models.attention import Window, windowed_attention
from cast_ray.models.experts.adapter import Adapter
from cast_ray.models.experts.shift import ProjectionShift

__all__ = ["Block", "SelfAttention"]

MLP_ADAPTER_SCALE = 0.5
"""Weight of the adapter beside the feed-forward layer; in the authors' code, not in the paper's equation 5."""


class SelfAttention(nn.Module):
    """Multi-head self-attention of [B, T, S + N, D] tokens inside a window.

    Without `key_bias` only queries and values have a bias, as in BEiT and VideoMAE. `shift` lets queries, keys or
    values come from neighbouring frames.
    """

    def __init__(
        self, width: int, num_heads: int, *, window: Window, key_bias: bool, shift: ProjectionShift | None = None
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.window = window
        self.qkv = nn.Linear(width, 3 * width, bias=key_bias)
        self.project = nn.Linear(width, width)
        self.q_bias = None if key_bias else nn.Parameter(torch.zeros(width))
        self.v_bias = None if key_bias else nn.Parameter(torch.zeros(width))
        self.shift = shift

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(x)
        # Added after the projection, not merged into it: a weight that is read outside its own module's
        # forward would not be gathered under ZeRO stage 3. In place and for all three at once: as new tensors, queries
        # and values would be kept for the backward pass beside the whole of what they were made from.
        if self.q_bias is not None and self.v_bias is not None:
            qkv += torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        query, key, value = qkv.chunk(3, dim=-1)
        if self.shift is not None:
            query, key, value = self.shift(query, key, value)
        return self.project(windowed_attention(query, key, value, window=self.window, num_heads=self.num_heads))


class Block(nn.Module):
    """Pre-norm transformer block in two halves, between which experts may exchange features.

    One adapter follows the attention (with its own skip), one runs parallel to the feed-forward layer. Drop path
    touches only what trains: with adapters it acts on the second one and never on the frozen branches; without
    adapters, where the whole block trains, on both branches.

    Args:
        width: D.
        attention_norm, attention, mlp_norm, mlp: modules from [B, T, S + N, D] to the same shape.
        adapters: whether there are adapters.
        drop_path: chance of dropping a branch, per clip.
        trunk_shift: applied to the tokens before either half (TokenShift).
    """

    def __init__(
        self,
        width: int,
        *,
        attention_norm: nn.Module,
        attention: nn.Module,
        mlp_norm: nn.Module,
        mlp: nn.Module,
        adapters: bool,
        drop_path: float,
        trunk_shift: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.attention_norm = attention_norm
        self.attention = attention
        self.attention_adapter = Adapter(width, skip=True) if adapters else None
        self.mlp_norm = mlp_norm
        self.mlp = mlp
        self.mlp_adapter = Adapter(width, skip=False) if adapters else None
        self.drop_path = DropPath(drop_path)
        self.trunk_shift = nn.Identity() if trunk_shift is None else trunk_shift

    def attend(self, x: Tensor) -> Tensor:
        """First half: [B, T, S + N, D] plus its adapted self-attention."""
        x = self.trunk_shift(x)
        attended = self.attention(self.attention_norm(x))
        return x + (self.drop_path(attended) if self.attention_adapter is None else self.attention_adapter(attended))

    def feed_forward(self, x: Tensor) -> Tensor:
        """Second half: [B, T, S + N, D] plus feed-forward layer and parallel adapter."""
        x = self.trunk_shift(x)
        normed = self.mlp_norm(x)
        if self.mlp_adapter is None:
            return x + self.drop_path(self.mlp(normed))
        return torch.add(x + self.mlp(normed), self.drop_path(self.mlp_adapter(normed)), alpha=MLP_ADAPTER_SCALE)

    def forward(self, x: Tensor) -> Tensor:
        return self.feed_forward(self.attend(x))
