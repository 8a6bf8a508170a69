"""How the spatial expert sees a clip: frame by frame, as the visual tower of CLIP does.

Radford et al., "Learning transferable visual models from natural language supervision", arXiv 2103.00020.
Legend: B batch, T frames of the clip, U frames that are looked at (one per time step), N patches, D width.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn

from cast_ray.models.attention import SPACE
from cast_ray.models.experts.expert import Expert, ExpertSize, TokenLayout, init_patches, make_blocks

__all__ = ["QuickGELU", "spatial_expert"]

NORM_EPS = 1e-5


class QuickGELU(nn.Module):
    """x * sigmoid(1.702 x), the approximate GELU that OpenAI's CLIP weights were trained with."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class SpatialEmbedding(nn.Module):
    """Patches of the last frame of every time step, a class token in front, learned positions, a norm."""

    def __init__(self, size: ExpertSize) -> None:
        super().__init__()
        self.tubelet_size = size.tubelet_size
        scale = size.width**-0.5
        self.class_token = nn.Parameter(scale * torch.randn(size.width))
        self.positions = nn.Parameter(scale * torch.randn(1 + size.patches, size.width))
        self.patch = nn.Conv2d(3, size.width, kernel_size=size.patch_size, stride=size.patch_size, bias=False)
        init_patches(self.patch)
        self.norm = nn.LayerNorm(size.width, eps=NORM_EPS)

    def forward(self, clip: Tensor) -> Tensor:
        """Clip [B, 3, T, H, W] to tokens [B, U, 1 + N, D]."""
        frames = clip[:, :, self.tubelet_size - 1 :: self.tubelet_size]
        batch, _, steps, _, _ = frames.shape
        patches = self.patch(rearrange(frames, "b c u h w -> (b u) c h w"))
        patches = rearrange(patches, "(b u) d h w -> b u (h w) d", b=batch)
        class_token = self.class_token.expand(batch, steps, 1, -1)
        return self.norm(torch.cat([class_token, patches], dim=2) + self.positions)


def spatial_expert(size: ExpertSize) -> Expert:
    """An expert of the CLIP family: attention within a frame, one class token per frame, QuickGELU."""
    return Expert(
        embedding=SpatialEmbedding(size),
        blocks=make_blocks(size, window=SPACE, key_bias=True, activation=QuickGELU, norm_eps=NORM_EPS),
        norm=nn.LayerNorm(size.width, eps=NORM_EPS),
        layout=TokenLayout(steps=size.steps, special=1, patches=size.patches),
        clip_shape=size.clip_shape,
    )
