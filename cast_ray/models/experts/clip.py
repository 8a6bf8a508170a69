"""The expert of the CLIP family: frame by frame, as the visual tower of CLIP does.

Radford et al., "Learning transferable visual models from natural language supervision", arXiv 2103.00020.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from cast_ray.models.attention import SPACE
from cast_ray.models.experts.expert import Expert, TokenLayout, make_blocks
from cast_ray.models.experts.frames import FrameEmbedding
from cast_ray.models.layers import QuickGELU
from cast_ray.models.spec import CLIP, VIDEO, VideoInput

__all__ = ["clip_expert"]

NORM_EPS = 1e-5


def clip_expert(spec: CLIP, video: VideoInput, *, side: int, drop_path_rates: Sequence[float]) -> Expert:
    """Attention within a frame, one class token per frame; the final norm follows the mean over frames."""
    return Expert(
        spec=spec,
        modality=VIDEO,
        embedding=FrameEmbedding(
            spec.width,
            patch_size=spec.patch_size,
            side=side,
            frames_per_step=video.frames_per_step,
            patch_bias=False,
            norm=nn.LayerNorm(spec.width, eps=NORM_EPS),
        ),
        blocks=make_blocks(
            spec,
            window=SPACE,
            key_bias=True,
            activation=QuickGELU if spec.activation == "quick_gelu" else nn.GELU,
            norm_eps=NORM_EPS,
            drop_path_rates=drop_path_rates,
        ),
        norm=nn.LayerNorm(spec.width, eps=NORM_EPS),
        layout=TokenLayout(steps=video.steps, special=1, grid=(side, side), width=spec.width),
        input_shape=video.shape,
        pooled=1,
        norm_first=False,
    )
