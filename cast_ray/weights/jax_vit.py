"""Which name each tensor of Google's ViT checkpoints (.npz written by JAX, ImageNet-21k) has here.

Dosovitskiy et al., arXiv 2010.11929; Steiner et al., arXiv 2106.10270. MSCA and TokenShift start from these.
Legend: D width, H heads, d width of a head.
"""

from __future__ import annotations

import re

from torch import Tensor

from cast_ray.models.spec import ViT
from cast_ray.weights.layout import Layout, Tensors, Translated, flatten_tables, fuse_qkv, without

__all__ = ["JAX_VIT", "from_jax_vit"]

EMBEDDING = {
    "cls": "embedding.class_token",
    "Transformer/posembed_input/pos_embedding": "embedding.positions",
    "embedding/kernel": "embedding.patch.weight",
    "embedding/bias": "embedding.patch.bias",
    "Transformer/encoder_norm/scale": "norm.weight",
    "Transformer/encoder_norm/bias": "norm.bias",
}
PARTS = {
    "LayerNorm_0": "attention_norm",
    "LayerNorm_2": "mlp_norm",
    "MlpBlock_3/Dense_0": "mlp.fc1",
    "MlpBlock_3/Dense_1": "mlp.fc2",
    "MultiHeadDotProductAttention_1/out": "attention.project",
    **{f"MultiHeadDotProductAttention_1/{part}": f"attention.{part}" for part in ("query", "key", "value")},
}
KINDS = {"scale": "weight", "kernel": "weight", "bias": "bias"}
UNUSED = ("head/", "pre_logits/")


def from_jax_vit(tensors: Tensors) -> Translated:
    """Tensors with PyTorch's order of axes; the classifier is ignored by name."""
    ours: dict[str, Tensor] = {}
    unknown = []
    for name, tensor in without(tensors, UNUSED).items():
        new = EMBEDDING.get(name) or _block_name(name)
        if new is None:
            unknown.append(name)
        else:
            ours[new] = _in_our_order(new, tensor)
    return Translated(tensors=flatten_tables(fuse_qkv(ours)), unknown=tuple(unknown))


def _block_name(name: str) -> str | None:
    match = re.fullmatch(r"Transformer/encoderblock_(\d+)/(.+)/(scale|kernel|bias)", name)
    if match is None or match[2] not in PARTS:
        return None
    return f"blocks.{match[1]}.{PARTS[match[2]]}.{KINDS[match[3]]}"


def _in_our_order(name: str, tensor: Tensor) -> Tensor:
    """The axes as PyTorch has them; a tensor with another number of axes than expected is left to the strict load."""
    part = re.search(r"attention\.(query|key|value)\.(weight|bias)$", name)
    if name == "embedding.patch.weight" and tensor.ndim == 4:
        return tensor.permute(3, 2, 0, 1)  # [height, width, 3, D]
    if name.endswith("attention.project.weight") and tensor.ndim == 3:
        return tensor.flatten(0, 1).t()  # [H, d, D]
    if part is not None and tensor.ndim > 1:
        return tensor.flatten(1).t() if part[2] == "weight" else tensor.flatten()  # [D, H, d], [H, d]
    return tensor.t() if name.endswith(".weight") and tensor.ndim == 2 else tensor


def _holds(tensors: Tensors) -> bool:
    return "embedding/kernel" in tensors and "Transformer/encoder_norm/scale" in tensors


JAX_VIT = Layout(name="ViT of Google in .npz", families=(ViT,), holds=_holds, translate=from_jax_vit)
