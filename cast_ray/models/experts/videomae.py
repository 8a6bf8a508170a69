"""The expert of the VideoMAE family: a clip as one volume of tubelets, as the encoders of VideoMAE and MVD see it.

Tong et al., "VideoMAE: masked autoencoders are data-efficient learners for self-supervised video pre-training",
arXiv 2203.12602; Wang et al., "Masked video distillation", arXiv 2212.04500.
Legend: B batch, T frames, U tubelets along time, N patches per tubelet step, D width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor, nn

from cast_ray.models.attention import SPACE_TIME
from cast_ray.models.experts.expert import Expert, TokenLayout, make_blocks
from cast_ray.models.experts.frames import scale_frames
from cast_ray.models.layers import init_patches
from cast_ray.models.spec import VIDEO, VideoInput, VideoMAE

__all__ = ["axes_table", "sine_cosine_table", "videomae_expert"]

NORM_EPS = 1e-6


def sine_cosine_table(length: int, width: int) -> Tensor:
    """Fixed positions [length, width] of Vaswani et al., "Attention is all you need": sine and cosine interleaved."""
    channel = torch.arange(width, dtype=torch.float64)
    angle = torch.arange(length, dtype=torch.float64)[:, None] / 10000 ** (2 * (channel // 2) / width)
    return torch.where(channel % 2 == 0, angle.sin(), angle.cos()).float()


def axes_table(steps: int, side: int, width: int) -> Tensor:
    """MVD's fixed positions [steps, side * side, width].

    A quarter of the channels codes the time, three eighths the column and three eighths the row; each part is [sines,
    cosines] of the place along its axis.
    """
    time = _half_and_half(steps, width // 4)[:, None, None].expand(-1, side, side, -1)
    place = _half_and_half(side, width * 3 // 8)
    column = place[None, None].expand(steps, side, -1, -1)
    row = place[None, :, None].expand(steps, -1, side, -1)
    return torch.cat([time, column, row], dim=-1).flatten(1, 2).float()


def _half_and_half(length: int, width: int) -> Tensor:
    frequency = 10000 ** -(torch.arange(width // 2, dtype=torch.float64) / (width // 2))
    angle = torch.arange(length, dtype=torch.float64)[:, None] * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=1)


class TubeletEmbedding(nn.Module):
    """Tubelets of the clip plus fixed positions over the flattened (time, row, column) order; no class token."""

    positions: Tensor

    def __init__(self, spec: VideoMAE, *, side: int, video: VideoInput) -> None:
        super().__init__()
        width = spec.width
        kernel = (video.frames_per_step, spec.patch_size, spec.patch_size)
        self.size = side * spec.patch_size
        self.grid = (side, side)
        self.patch = init_patches(nn.Conv3d(3, width, kernel_size=kernel, stride=kernel))
        if spec.positions == "axes":
            table = axes_table(video.steps, side, width)
        else:
            table = sine_cosine_table(video.steps * side * side, width).view(video.steps, side * side, width)
        self.register_buffer("positions", table, persistent=False)

    def forward(self, clip: Tensor) -> Tensor:
        """Clip [B, 3, T, H, W] to tokens [B, U, N, D]."""
        tokens = rearrange(self.patch(scale_frames(clip, self.size)), "b d u h w -> b u (h w) d")
        return tokens + self.positions.to(tokens.dtype)  # DeepSpeed casts parameters to bf16, but not buffers


def videomae_expert(spec: VideoMAE, video: VideoInput, *, side: int, drop_path_rates: Sequence[float]) -> Expert:
    """Joint space-time attention, no bias on keys, no special tokens; the read-out is the normed mean of all tokens."""
    return Expert(
        spec=spec,
        modality=VIDEO,
        embedding=TubeletEmbedding(spec, side=side, video=video),
        blocks=make_blocks(
            spec,
            window=SPACE_TIME,
            key_bias=False,
            activation=nn.GELU,
            norm_eps=NORM_EPS,
            drop_path_rates=drop_path_rates,
        ),
        norm=nn.LayerNorm(spec.width, eps=NORM_EPS),
        layout=TokenLayout(steps=video.steps, special=0, grid=(side, side), width=spec.width),
        input_shape=video.shape,
        pooled=0,
        norm_first=False,
    )
