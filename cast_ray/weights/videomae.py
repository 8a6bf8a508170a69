"""Which name each tensor of a VideoMAE encoder has here, in the authors' .pth files, and those of MVD.

VideoMAE's pre-training files hold the encoder under `encoder.` beside a decoder, fine-tuned files of both hold it
without a prefix beside a classifier. MVD's pre-training files hold it without a prefix beside two decoders and with a
table of positions (github.com/ruiwang2021/mvd, commit 8248039).
"""

from __future__ import annotations

from cast_ray.models.spec import VideoMAE
from cast_ray.weights.keymap import KeyMap
from cast_ray.weights.layout import Layout, Tensors, Translated, apply, without

__all__ = ["KEY_MAP", "MVD", "VIDEOMAE", "from_videomae"]

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
        # Fixed, computed here and there; only compared with ours.
        ("embedding.positions", "pos_embed"),
        # Pre-training ends in `norm`; fine-tuning with mean pooling moves it behind the pooling as `fc_norm`.
        # Either one is the norm that our expert applies to the pooled tokens.
        ("norm.*", "norm.*"),
        ("norm.*", "fc_norm.*"),
    )
)

UNUSED = (
    *("decoder.", "encoder_to_decoder.", "mask_token", "head."),
    *("decoder_img.", "decoder_vid.", "down_img.", "down_vid.", "pos_embed_img", "pos_embed_vid"),
)
PREFIXES = ("encoder.", "backbone.")
HEAD = "head."


def from_videomae(tensors: Tensors) -> Translated:
    """Tensors of the encoder; decoders and mask tokens are ignored by name, a classifier is kept apart.

    Raises:
        UserError: both `norm` and `fc_norm` are present.
    """
    bare = {_without_prefix(name): tensor for name, tensor in without(tensors, UNUSED).items()}
    translated = apply(KEY_MAP, bare)
    head = {name.removeprefix(HEAD): tensor for name, tensor in tensors.items() if name.startswith(HEAD)}
    return Translated(tensors=translated.tensors, unknown=translated.unknown, head=head)


def _without_prefix(name: str) -> str:
    for prefix in PREFIXES:
        name = name.removeprefix(prefix)
    return name


def _holds(tensors: Tensors) -> bool:
    names = ["patch_embed.proj.weight", *(f"{prefix}patch_embed.proj.weight" for prefix in PREFIXES)]
    # timm's image models have the same names, but patches of one frame.
    return any(name in tensors and tensors[name].ndim == 5 for name in names) and not _is_mvd(tensors)


def _is_mvd(tensors: Tensors) -> bool:
    return "mask_token_vid" in tensors or "mask_token_img" in tensors


VIDEOMAE = Layout(
    name="VideoMAE of its authors (or fine-tuned MVD)", families=(VideoMAE,), holds=_holds, translate=from_videomae
)
MVD = Layout(name="MVD of its authors", families=(VideoMAE,), holds=_is_mvd, translate=from_videomae)
