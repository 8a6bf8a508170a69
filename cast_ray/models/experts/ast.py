"""The audio expert: a spectrogram as one image of overlapping patches, as the audio spectrogram transformer sees it.

Gong, Chung and Glass, "AST: audio spectrogram transformer", arXiv 2104.01778.
Legend: B batch, M mel bins, F columns of 10 ms, P patches in (frequency row, time column) order, D width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor, nn

from cast_ray.models.attention import SPACE
from cast_ray.models.experts.expert import Expert, TokenLayout, make_blocks
from cast_ray.models.layers import init_patches
from cast_ray.models.spec import AST, AUDIO, AudioInput

__all__ = ["ast_expert"]

NORM_EPS = 1e-6


class SpectrogramEmbedding(nn.Module):
    """Overlapping patches of a spectrogram behind a class and a distillation token, learned positions."""

    def __init__(self, spec: AST, grid: tuple[int, int]) -> None:
        super().__init__()
        scale = spec.width**-0.5
        self.grid = grid
        self.class_token = nn.Parameter(scale * torch.randn(spec.width))
        self.distillation_token = nn.Parameter(scale * torch.randn(spec.width))
        self.positions = nn.Parameter(scale * torch.randn(2 + grid[0] * grid[1], spec.width))
        self.patch = init_patches(nn.Conv2d(1, spec.width, kernel_size=spec.patch_size, stride=spec.stride))

    def forward(self, spectrogram: Tensor) -> Tensor:
        """Spectrogram [B, M, F] to tokens [B, 1, 2 + P, D]."""
        patches = rearrange(self.patch(spectrogram[:, None]), "b d m f -> b (m f) d")
        special = torch.stack([self.class_token, self.distillation_token]).expand(patches.shape[0], -1, -1)
        return (torch.cat([special, patches], dim=1) + self.positions)[:, None]


def ast_expert(spec: AST, audio: AudioInput, *, drop_path_rates: Sequence[float]) -> Expert:
    """Attention over the whole spectrogram; the read-out is the mean of the two normed special tokens."""
    grid = spec.grid(audio)
    return Expert(
        spec=spec,
        modality=AUDIO,
        embedding=SpectrogramEmbedding(spec, grid),
        blocks=make_blocks(
            spec,
            window=SPACE,
            key_bias=True,
            activation=nn.GELU,
            norm_eps=NORM_EPS,
            drop_path_rates=drop_path_rates,
        ),
        norm=nn.LayerNorm(spec.width, eps=NORM_EPS),
        layout=TokenLayout(steps=1, special=2, grid=grid, width=spec.width),
        input_shape=audio.shape,
        pooled=2,
        norm_first=True,
    )
