"""What one transformer block of an expert does, and where its adapters sit.

Legend: B batch, T time steps, S special tokens per step, N patches per step, D width.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from timm.layers import DropPath, Mlp
from torch import Tensor, nn

from cast_ray.models.attention import Window, windowed_attention
from cast_ray.models.experts.adapter import Adapter

__all__ = ["Block", "SelfAttention"]

MLP_ADAPTER_SCALE = 0.5
"""Weight of the adapter beside the feed-forward layer; in the authors' code, not in the paper's equation 5."""


class SelfAttention(nn.Module):
    """Multi-head self-attention of [B, T, S + N, D] tokens inside a window.

    Without `key_bias` only queries and values have a bias, as in BEiT and VideoMAE.
    """

    def __init__(self, width: int, num_heads: int, *, window: Window, key_bias: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.window = window
        self.qkv = nn.Linear(width, 3 * width, bias=key_bias)
        self.project = nn.Linear(width, width)
        self.q_bias = None if key_bias else nn.Parameter(torch.zeros(width))
        self.v_bias = None if key_bias else nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.qkv(x).chunk(3, dim=-1)
        # Added after the projection, not merged into it: a weight that is read outside its own module's
        # forward would not be gathered under ZeRO stage 3.
        if self.q_bias is not None and self.v_bias is not None:
            query, value = query + self.q_bias, value + self.v_bias
        return self.project(windowed_attention(query, key, value, window=self.window, num_heads=self.num_heads))


class Block(nn.Module):
    """Pre-norm transformer block in two halves, between which experts may exchange features.

    One adapter follows the attention (with its own skip), one runs parallel to the feed-forward layer. Drop path
    touches only what trains: it acts on the second adapter and never on the frozen branches.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        *,
        mlp_width: int,
        window: Window,
        key_bias: bool,
        activation: Callable[[], nn.Module],
        norm_eps: float,
        drop_path: float,
    ) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width, eps=norm_eps)
        self.attention = SelfAttention(width, num_heads, window=window, key_bias=key_bias)
        self.attention_adapter = Adapter(width, skip=True)
        self.mlp_norm = nn.LayerNorm(width, eps=norm_eps)
        self.mlp = Mlp(width, mlp_width, act_layer=activation)
        self.mlp_adapter = Adapter(width, skip=False)
        self.drop_path = DropPath(drop_path)

    def attend(self, x: Tensor) -> Tensor:
        """First half: [B, T, S + N, D] plus its adapted self-attention."""
        return x + self.attention_adapter(self.attention(self.attention_norm(x)))

    def feed_forward(self, x: Tensor) -> Tensor:
        """Second half: [B, T, S + N, D] plus feed-forward layer and parallel adapter."""
        normed = self.mlp_norm(x)
        return x + self.mlp(normed) + self.drop_path(MLP_ADAPTER_SCALE * self.mlp_adapter(normed))

    def forward(self, x: Tensor) -> Tensor:
        return self.feed_forward(self.attend(x))
