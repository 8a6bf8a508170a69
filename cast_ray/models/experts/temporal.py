"""How the temporal expert sees a clip: as one volume of tubelets, as the encoder of VideoMAE does.

Tong et al., "VideoMAE: masked autoencoders are data-efficient learners for self-supervised video pre-training",
arXiv 2203.12602. Legend: B batch, T frames, U tubelets along time, N patches per tubelet step, D width.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn

from cast_ray.models.attention import SPACE_TIME
from cast_ray.models.experts.expert import Expert, ExpertSize, TokenLayout, init_patches, make_blocks

__all__ = ["sine_cosine_table", "temporal_expert"]

NORM_EPS = 1e-6


def sine_cosine_table(length: int, width: int) -> Tensor:
    """Fixed positions [length, width] of Vaswani et al., "Attention is all you need": sine and cosine interleaved."""
    channel = torch.arange(width, dtype=torch.float64)
    angle = torch.arange(length, dtype=torch.float64)[:, None] / 10000 ** (2 * (channel // 2) / width)
    return torch.where(channel % 2 == 0, angle.sin(), angle.cos()).float()


class TemporalEmbedding(nn.Module):
    """Tubelets of the clip plus fixed positions over the flattened (time, row, column) order; no class token."""

    positions: Tensor

    def __init__(self, size: ExpertSize) -> None:
        super().__init__()
        kernel = (size.tubelet_size, size.patch_size, size.patch_size)
        self.patch = nn.Conv3d(3, size.width, kernel_size=kernel, stride=kernel)
        init_patches(self.patch)
        table = sine_cosine_table(size.steps * size.patches, size.width).view(size.steps, size.patches, size.width)
        self.register_buffer("positions", table, persistent=False)

    def forward(self, clip: Tensor) -> Tensor:
        """Clip [B, 3, T, H, W] to tokens [B, U, N, D]."""
        tokens = rearrange(self.patch(clip), "b d u h w -> b u (h w) d")
        return tokens + self.positions.to(tokens.dtype)  # DeepSpeed casts parameters to bf16, but not buffers


def temporal_expert(size: ExpertSize) -> Expert:
    """An expert of the VideoMAE family: joint space-time attention, no bias on keys, no special tokens."""
    return Expert(
        embedding=TemporalEmbedding(size),
        blocks=make_blocks(size, window=SPACE_TIME, key_bias=False, activation=nn.GELU, norm_eps=NORM_EPS),
        norm=nn.LayerNorm(size.width, eps=NORM_EPS),
        layout=TokenLayout(steps=size.steps, special=0, patches=size.patches),
        clip_shape=size.clip_shape,
    )
