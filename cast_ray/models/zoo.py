"""Which models have a name: importing this module lets `timm.create_model` find them.

`timm.create_model("cast_tiny", num_classes={"verb": 97, "noun": 300}, img_size=48)` overrides any field of `CastSize`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from timm.models import register_model

from cast_ray.errors import UserError
from cast_ray.labels import LABEL
from cast_ray.models.cast import CastSize, build_cast
from cast_ray.models.network import Network

# A list, because timm appends the name of every registered model to it.
__all__ = ["SIZES"]

SIZES: Mapping[str, CastSize] = {
    "cast_tiny": CastSize(img_size=32, patch_size=8, num_frames=8, width=64, depth=3, num_heads=4),
    "cast_base_patch16_224": CastSize(),
}
"""Default sizes of the named models."""

TIMM_OPTIONS = ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")
"""What `timm.create_model` passes to every model; it concerns weights on a hub, which these models do not have."""


def _create(name: str, pretrained: bool, num_classes: int | Mapping[str, int], options: dict[str, Any]) -> Network:
    if pretrained:
        raise UserError(f"{name} has no pretrained weights of its own; load its experts with cast_ray.weights.load")
    sizes = {key: value for key, value in options.items() if key not in TIMM_OPTIONS}
    valid = [field.name for field in fields(CastSize)]
    unknown = sorted(set(sizes) - set(valid))
    if unknown:
        raise UserError(f"{name} has no options {unknown}; valid are num_classes and {valid}")
    counts = {LABEL: num_classes} if isinstance(num_classes, int) else num_classes
    return build_cast(replace(SIZES[name], **sizes), counts)


@register_model
def cast_tiny(pretrained: bool = False, num_classes: int | Mapping[str, int] = 174, **options: Any) -> Network:
    """CAST small enough to train from scratch on a laptop: width 64, depth 3, 8 frames of 32 x 32."""
    return _create("cast_tiny", pretrained, num_classes, options)


@register_model
def cast_base_patch16_224(
    pretrained: bool = False, num_classes: int | Mapping[str, int] = 174, **options: Any
) -> Network:
    """CAST of the paper: CLIP ViT-B/16 and VideoMAE ViT-B/16, 16 frames of 224 x 224, down ratio 2."""
    return _create("cast_base_patch16_224", pretrained, num_classes, options)
