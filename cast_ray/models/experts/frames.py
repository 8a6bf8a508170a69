"""How frame-wise experts see a clip: patches of single frames, a class token and a position table.

Legend: B batch, T frames of the clip, U frames that are looked at (one per time step), N patches, D width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from cast_ray.models.layers import init_patches

__all__ = ["FrameEmbedding", "pick_frames", "scale_frames"]


def scale_frames(clip: Tensor, size: int) -> Tensor:
    """Clip [B, 3, T, H, W] with frames of size x size pixels.

    Experts that exchange features share one grid of patches. An expert with patches of 14 pixels therefore sees frames
    at 14 pixels per patch of the grid that an expert with patches of 16 pixels has.
    """
    if clip.shape[-1] == size:
        return clip
    # In float32, because a CPU knows no antialiasing of other types.
    images = rearrange(clip.float(), "b c t h w -> (b t) c h w")
    images = F.interpolate(images, size=(size, size), mode="bilinear", antialias=True).to(clip.dtype)
    return rearrange(images, "(b t) c h w -> b c t h w", b=clip.shape[0])


def pick_frames(clip: Tensor, *, frames_per_step: int, size: int) -> Tensor:
    """The last frame of every time step of [B, 3, T, H, W] as images [(B U), 3, size, size]."""
    frames = scale_frames(clip[:, :, frames_per_step - 1 :: frames_per_step], size)
    return rearrange(frames, "b c u h w -> (b u) c h w")


class FrameEmbedding(nn.Module):
    """Patches of one frame per time step, a class token in front, learned positions, perhaps a norm.

    Args:
        width: D.
        patch_size: pixels.
        side: patches along one side of a frame.
        frames_per_step: T / U.
        patch_bias: whether the patch projection has a bias.
        norm: applied to the tokens.
    """

    def __init__(
        self,
        width: int,
        *,
        patch_size: int,
        side: int,
        frames_per_step: int,
        patch_bias: bool,
        norm: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.frames_per_step = frames_per_step
        self.size = side * patch_size
        self.grid = (side, side)
        self.class_token = nn.Parameter(width**-0.5 * torch.randn(width))
        self.positions = nn.Parameter(width**-0.5 * torch.randn(1 + side * side, width))
        self.patch = init_patches(nn.Conv2d(3, width, kernel_size=patch_size, stride=patch_size, bias=patch_bias))
        self.norm = nn.Identity() if norm is None else norm

    def forward(self, clip: Tensor) -> Tensor:
        """Clip [B, 3, T, H, W] to tokens [B, U, 1 + N, D]."""
        patches = self.patch(pick_frames(clip, frames_per_step=self.frames_per_step, size=self.size))
        patches = rearrange(patches, "(b u) d h w -> b u (h w) d", b=clip.shape[0])
        class_token = self.class_token.expand(*patches.shape[:2], 1, -1)
        return self.norm(torch.cat([class_token, patches], dim=2) + self.positions)
