"""Which name each tensor of a VideoMAE encoder has here, in the layout of the authors' .pth files.

Pre-training files hold the encoder under `encoder.` beside a decoder, fine-tuning files hold it without a prefix
beside a classifier.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from cast_ray.weights.keymap import KeyMap

__all__ = ["KEY_MAP", "from_videomae"]

BLOCK = "blocks.{i}"

KEY_MAP = KeyMap(
    (
        ("embedding.patch.*", "patch_embed.proj.*"),
        (f"{BLOCK}.attention_norm.*", f"{BLOCK}.norm1.*"),
        (f"{BLOCK}.attention.q_bias", f"{BLOCK}.attn.q_bias"),
        (f"{BLOCK}.attention.v_bias", f"{BLOCK}.attn.v_bias"),
        (f"{BLOCK}.attention.qkv.weight", f"{BLOCK}.attn.qkv.weight"),
        (f"{BLOCK}.attention.project.*", f"{BLOCK}.attn.proj.*"),
        (f"{BLOCK}.mlp_norm.*", f"{BLOCK}.norm2.*"),
        (f"{BLOCK}.mlp.fc1.*", f"{BLOCK}.mlp.fc1.*"),
        (f"{BLOCK}.mlp.fc2.*", f"{BLOCK}.mlp.fc2.*"),
        # Pre-training ends in `norm`; fine-tuning with mean pooling moves it behind the pooling as `fc_norm`.
        # Either one is the norm that our expert applies to the pooled tokens.
        ("norm.*", "norm.*"),
        ("norm.*", "fc_norm.*"),
    )
)

UNUSED = ("decoder.", "encoder_to_decoder.", "mask_token", "head.")
PREFIX = "encoder."


def from_videomae(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Tensors of the encoder under the names of our temporal expert, and the names that are unknown here.

    Decoder, mask token and classifier are ignored by name.

    Raises:
        UserError: both `norm` and `fc_norm` are present.
    """
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith(UNUSED)}
    return KEY_MAP.to_ours({name.removeprefix(PREFIX): tensor for name, tensor in kept.items()})
