"""Which name each tensor of a timm ViT has here: as ViT, as CLIP, as AST's starting point, or as any timm expert.

open_clip stores EVA-CLIP and its like in the same layout under `visual.trunk.`.
"""

from __future__ import annotations

import re

from torch import Tensor

from cast_ray.models.spec import AST, CLIP, TimmViT, ViT
from cast_ray.weights.keymap import KeyMap
from cast_ray.weights.layout import Layout, Tensors, Translated, apply, without
from cast_ray.weights.resize import square_grid

__all__ = ["DISTILLED", "TIMM_ANY", "TIMM_CLIP", "TIMM_VIT", "VIT_MAP", "from_distilled", "from_timm", "from_vit"]

BLOCK = "blocks.{i}"

VIT_MAP = KeyMap(
    (
        ("embedding.class_token", "cls_token"),
        ("embedding.distillation_token", "dist_token"),
        ("embedding.positions", "pos_embed"),
        ("embedding.patch.*", "patch_embed.proj.*"),
        ("embedding.norm.*", "norm_pre.*"),
        (f"{BLOCK}.attention_norm.*", f"{BLOCK}.norm1.*"),
        (f"{BLOCK}.attention.qkv.*", f"{BLOCK}.attn.qkv.*"),
        (f"{BLOCK}.attention.project.*", f"{BLOCK}.attn.proj.*"),
        (f"{BLOCK}.mlp_norm.*", f"{BLOCK}.norm2.*"),
        (f"{BLOCK}.mlp.fc1.*", f"{BLOCK}.mlp.fc1.*"),
        (f"{BLOCK}.mlp.fc2.*", f"{BLOCK}.mlp.fc2.*"),
        # Behind the pooling in models that average their tokens.
        ("norm.*", "norm.*"),
        ("norm.*", "fc_norm.*"),
    )
)

TRUNK = "visual.trunk."
PATCH = "patch_embed.proj.weight"
READ_OUTS = ("head.", "head_dist.", "pre_logits.", "fc.", "attn_pool.")
"""What stands behind the last norm; an expert reads out its own way."""
SPECIAL = {
    **{"norm1": "attention_norm", "norm2": "mlp_norm", "attn": "attention.inner", "mlp": "mlp.inner"},
    **{"gamma_1": "attention.scale", "gamma_2": "mlp.scale"},
    **{"ls1.gamma": "attention.scale", "ls2.gamma": "mlp.scale"},
}
"""Parts of a timm block by our name."""


def from_vit(tensors: Tensors) -> Translated:
    """Tensors for the experts written here; classifiers are ignored by name."""
    return apply(VIT_MAP, without(_vit(tensors), READ_OUTS))


def from_distilled(tensors: Tensors) -> Translated:
    """A distilled DeiT as AST's starting point: the colour channels of its patches are added, as AST does."""
    translated = from_vit(tensors)
    ours = dict(translated.tensors)
    ours["embedding.patch.weight"] = ours["embedding.patch.weight"].sum(dim=1, keepdim=True)
    grid = square_grid(len(ours["embedding.positions"]) - 2) if "embedding.positions" in ours else None
    return Translated(tensors=ours, unknown=translated.unknown, grid=grid)


def from_timm(tensors: Tensors) -> Translated:
    """Tensors for an expert made of timm's own modules; classifiers are ignored by name.

    Raises:
        UserError: both `norm` and `fc_norm` are present.
    """
    bare = without(_vit(tensors), READ_OUTS)
    ends, unknown = KeyMap((("norm.*", "norm.*"), ("norm.*", "fc_norm.*"))).to_ours(bare)
    return Translated(tensors={**ends, **{_timm_name(name): bare[name] for name in unknown}})


def _timm_name(name: str) -> str:
    block = re.fullmatch(r"(blocks\.\d+\.)(ls[12]\.gamma|[^.]+)(.*)", name)
    if block is None:
        return f"embedding.vit.{name}"
    start, part, rest = block.groups()
    return f"{start}{SPECIAL.get(part, part)}{rest}"


def _vit(tensors: Tensors) -> dict[str, Tensor]:
    """The image model alone, without the prefix and the text tower that open_clip puts around it."""
    if TRUNK + PATCH not in tensors:
        return dict(tensors)
    return {name.removeprefix(TRUNK): tensor for name, tensor in tensors.items() if name.startswith(TRUNK)}


def _holds(tensors: Tensors) -> bool:
    """Patches of images, and a ViT behind them."""
    patch = tensors.get(PATCH, tensors.get(TRUNK + PATCH))
    return patch is not None and patch.ndim == 4 and any(".norm1.weight" in name for name in tensors)


def _holds_clip(tensors: Tensors) -> bool:
    return _holds(tensors) and "norm_pre.weight" in _vit(tensors)


def _holds_distilled(tensors: Tensors) -> bool:
    return _holds(tensors) and "dist_token" in tensors


TIMM_CLIP = Layout(name="CLIP of timm", families=(CLIP,), holds=_holds_clip, translate=from_vit)
DISTILLED = Layout(name="distilled DeiT of timm", families=(AST,), holds=_holds_distilled, translate=from_distilled)
TIMM_VIT = Layout(name="ViT of timm", families=(ViT,), holds=_holds, translate=from_vit)
TIMM_ANY = Layout(name="ViT of timm", families=(TimmViT,), holds=_holds, translate=from_timm)
