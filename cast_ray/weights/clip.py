"""Which name each tensor of a CLIP visual tower has here, in the layout of OpenAI and open_clip.

Our spatial expert uses QuickGELU, as OpenAI's weights need. open_clip's own weights (LAION and others) have the same
layout but exact GELU; a file does not say which it is, so give OpenAI's.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from cast_ray.weights.keymap import KeyMap

__all__ = ["KEY_MAP", "from_clip"]

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


def from_clip(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Tensors of the visual tower under the names of our spatial expert, and the names that are unknown here.

    The text tower and the projection into the joint space are ignored by name.
    """
    return KEY_MAP.to_ours({name: tensor for name, tensor in tensors.items() if not name.startswith(UNUSED)})
