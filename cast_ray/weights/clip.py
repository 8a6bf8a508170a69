"""Which name each tensor of a CLIP visual tower has here, in the layout of OpenAI and open_clip.

Whether a model was trained with QuickGELU (OpenAI's, and a few others) or exact GELU (most of open_clip's) is not in
the file; `cast_ray.weights.hub` records it for weights that it fetches.
"""

from __future__ import annotations

from cast_ray.models.spec import CLIP
from cast_ray.weights.keymap import KeyMap
from cast_ray.weights.layout import Layout, Tensors, Translated, apply, without

__all__ = ["KEY_MAP", "OPEN_CLIP", "from_clip"]

THEIRS = "visual.transformer.resblocks.{i}"
OURS = "blocks.{i}"

KEY_MAP = KeyMap(
    (
        ("embedding.class_token", "visual.class_embedding"),
        ("embedding.positions", "visual.positional_embedding"),
        ("embedding.patch.weight", "visual.conv1.weight"),
        ("embedding.norm.*", "visual.ln_pre.*"),
        (f"{OURS}.attention_norm.*", f"{THEIRS}.ln_1.*"),
        (f"{OURS}.attention.qkv.weight", f"{THEIRS}.attn.in_proj_weight"),
        (f"{OURS}.attention.qkv.bias", f"{THEIRS}.attn.in_proj_bias"),
        (f"{OURS}.attention.project.*", f"{THEIRS}.attn.out_proj.*"),
        (f"{OURS}.mlp_norm.*", f"{THEIRS}.ln_2.*"),
        (f"{OURS}.mlp.fc1.*", f"{THEIRS}.mlp.c_fc.*"),
        (f"{OURS}.mlp.fc2.*", f"{THEIRS}.mlp.c_proj.*"),
        ("norm.*", "visual.ln_post.*"),
    )
)

UNUSED = (
    "visual.proj",  # into the joint image-text space
    "transformer.",  # from here: the text tower and its surroundings
    "text.",
    "token_embedding.",
    "ln_final.",
    "positional_embedding",
    "text_projection",
    "logit_scale",
    "logit_bias",
    "input_resolution",
    "context_length",
    "vocab_size",
    "attn_mask",
)


def from_clip(tensors: Tensors) -> Translated:
    """Tensors of the visual tower; the text tower and the projection into the joint space are ignored by name."""
    return apply(KEY_MAP, without(tensors, UNUSED))


def _holds(tensors: Tensors) -> bool:
    return "visual.conv1.weight" in tensors and "visual.class_embedding" in tensors


OPEN_CLIP = Layout(name="CLIP of OpenAI or open_clip", families=(CLIP,), holds=_holds, translate=from_clip)
