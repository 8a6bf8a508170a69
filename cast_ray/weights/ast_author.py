"""Which name each tensor of an audio spectrogram transformer has here, in its authors' .pth files.

The file is a distilled DeiT of timm under `v.` (behind `module.`, which the reader removes) with patches of one
channel, and a classifier `mlp_head`.
"""

from __future__ import annotations

from cast_ray.models.spec import AST
from cast_ray.weights.layout import Layout, Tensors, Translated
from cast_ray.weights.timm_vit import from_vit

__all__ = ["AST_AUTHOR", "from_ast_author"]

VIT = "v."


def from_ast_author(tensors: Tensors) -> Translated:
    """Tensors of the transformer; classifiers are ignored by name."""
    bare = {name.removeprefix(VIT): tensor for name, tensor in tensors.items() if not name.startswith("mlp_head.")}
    return from_vit(bare)


def _holds(tensors: Tensors) -> bool:
    return "v.patch_embed.proj.weight" in tensors and "v.dist_token" in tensors


AST_AUTHOR = Layout(name="AST of its authors", families=(AST,), holds=_holds, translate=from_ast_author)
