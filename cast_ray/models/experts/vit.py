"""The frame-wise ViT of ImageNet checkpoints, and with a shift between frames MSCA and TokenShift.

Dosovitskiy et al., "An image is worth 16x16 words", arXiv 2010.11929; for the shifts see `cast_ray.models.spec.Shift`.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from cast_ray.models.attention import SPACE
from cast_ray.models.experts.expert import Expert, TokenLayout, make_blocks
from cast_ray.models.experts.frames import FrameEmbedding
from cast_ray.models.experts.shift import ProjectionShift, TokenShift
from cast_ray.models.spec import VIDEO, VideoInput, ViT

__all__ = ["vit_expert"]

NORM_EPS = 1e-6


def vit_expert(spec: ViT, video: VideoInput, *, side: int, drop_path_rates: Sequence[float]) -> Expert:
    """Attention within a frame; the normed class tokens are averaged over frames.

    A linear classifier on that average gives the average of the frames' logits, as MSCA and TokenShift are defined.
    """
    shift = spec.shift
    projections = trunk = None
    if shift is not None and shift.of == "token":
        trunk = TokenShift(shift, width=spec.width)
    elif shift is not None:
        projections = ProjectionShift(shift, num_heads=spec.num_heads, patches=side * side)
    return Expert(
        spec=spec,
        modality=VIDEO,
        embedding=FrameEmbedding(
            spec.width,
            patch_size=spec.patch_size,
            side=side,
            frames_per_step=video.frames_per_step,
            patch_bias=True,
        ),
        blocks=make_blocks(
            spec,
            window=SPACE,
            key_bias=True,
            activation=nn.GELU,
            norm_eps=NORM_EPS,
            drop_path_rates=drop_path_rates,
            shift=projections,
            trunk_shift=trunk,
        ),
        norm=nn.LayerNorm(spec.width, eps=NORM_EPS),
        layout=TokenLayout(steps=video.steps, special=1, grid=(side, side), width=spec.width),
        input_shape=video.shape,
        pooled=1,
        norm_first=True,
    )
