"""Which name each tensor of CLIP, ViT, AST and VideoMAE has here, in the layouts of Hugging Face's transformers.

Version 5 of the library names blocks of AST and ViT differently in memory than in files (`save_pretrained` writes the
older names); both are known here.
"""

from __future__ import annotations

import re

from torch import Tensor

from cast_ray.models.spec import AST, CLIP, VideoMAE, ViT
from cast_ray.weights.keymap import KeyMap
from cast_ray.weights.layout import Layout, Tensors, Translated, apply, fuse_qkv, without

__all__ = ["HF_AST", "HF_CLIP", "HF_VIDEOMAE", "HF_VIT", "from_hf_clip", "from_hf_videomae", "from_hf_vit"]

OURS = "blocks.{i}"

CLIP_BLOCK = "encoder.layers.{i}"
CLIP_MAP = KeyMap(
    (
        ("embedding.class_token", "embeddings.class_embedding"),
        ("embedding.positions", "embeddings.position_embedding.weight"),
        ("embedding.patch.weight", "embeddings.patch_embedding.weight"),
        ("embedding.norm.*", "pre_layrnorm.*"),  # the library's spelling
        (f"{OURS}.attention_norm.*", f"{CLIP_BLOCK}.layer_norm1.*"),
        (f"{OURS}.attention.query.*", f"{CLIP_BLOCK}.self_attn.q_proj.*"),
        (f"{OURS}.attention.key.*", f"{CLIP_BLOCK}.self_attn.k_proj.*"),
        (f"{OURS}.attention.value.*", f"{CLIP_BLOCK}.self_attn.v_proj.*"),
        (f"{OURS}.attention.project.*", f"{CLIP_BLOCK}.self_attn.out_proj.*"),
        (f"{OURS}.mlp_norm.*", f"{CLIP_BLOCK}.layer_norm2.*"),
        (f"{OURS}.mlp.fc1.*", f"{CLIP_BLOCK}.mlp.fc1.*"),
        (f"{OURS}.mlp.fc2.*", f"{CLIP_BLOCK}.mlp.fc2.*"),
        ("norm.*", "post_layernorm.*"),
    )
)

FILE, MEMORY = "encoder.layer.{i}", "layers.{i}"
VIT_PAIRS = (
    ("embedding.class_token", "embeddings.cls_token"),
    ("embedding.distillation_token", "embeddings.distillation_token"),
    ("embedding.positions", "embeddings.position_embeddings"),
    ("embedding.patch.*", "embeddings.patch_embeddings.projection.*"),
    *((f"{OURS}.attention_norm.*", f"{block}.layernorm_before.*") for block in (FILE, MEMORY)),
    *((f"{OURS}.mlp_norm.*", f"{block}.layernorm_after.*") for block in (FILE, MEMORY)),
    *((f"{OURS}.attention.{part}.*", f"{FILE}.attention.attention.{part}.*") for part in ("query", "key", "value")),
    (f"{OURS}.attention.query.*", f"{MEMORY}.attention.q_proj.*"),
    (f"{OURS}.attention.key.*", f"{MEMORY}.attention.k_proj.*"),
    (f"{OURS}.attention.value.*", f"{MEMORY}.attention.v_proj.*"),
    (f"{OURS}.attention.project.*", f"{FILE}.attention.output.dense.*"),
    (f"{OURS}.attention.project.*", f"{MEMORY}.attention.o_proj.*"),
    (f"{OURS}.mlp.fc1.*", f"{FILE}.intermediate.dense.*"),
    (f"{OURS}.mlp.fc2.*", f"{FILE}.output.dense.*"),
    (f"{OURS}.mlp.fc1.*", f"{MEMORY}.mlp.fc1.*"),
    (f"{OURS}.mlp.fc2.*", f"{MEMORY}.mlp.fc2.*"),
    ("norm.*", "layernorm.*"),
)
VIT_MAP = KeyMap(VIT_PAIRS)
VIDEOMAE_MAP = KeyMap(
    (
        *VIT_PAIRS,
        (f"{OURS}.attention.q_bias", f"{FILE}.attention.attention.q_bias"),
        (f"{OURS}.attention.v_bias", f"{FILE}.attention.attention.v_bias"),
        ("norm.*", "fc_norm.*"),
    )
)

MODELS = ("vision_model.", "videomae.", "audio_spectrogram_transformer.", "vit.")
"""What models with a task put before the names of the bare model."""
UNUSED = ("classifier.", "pooler.", "decoder.", "encoder_to_decoder.", "mask_token", "embeddings.mask_token")
CLIP_UNUSED = ("text_model.", "text_projection.", "visual_projection.", "logit_scale", "embeddings.position_ids")


def from_hf_clip(tensors: Tensors) -> Translated:
    """The visual tower of CLIPModel or CLIPVisionModel, text tower and projections left out."""
    return _fused(apply(CLIP_MAP, without(_bare(tensors), CLIP_UNUSED)))


def from_hf_vit(tensors: Tensors) -> Translated:
    """The transformer of ViTModel or ASTModel, or of the same with a classifier."""
    return _fused(apply(VIT_MAP, without(_bare(tensors), UNUSED)))


def from_hf_videomae(tensors: Tensors) -> Translated:
    """The encoder of VideoMAEModel, VideoMAEForPreTraining or VideoMAEForVideoClassification; its classifier apart.

    Raises:
        UserError: both `layernorm` and `fc_norm` are present.
    """
    bare = _bare(tensors)
    translated = _fused(_separate_biases(apply(VIDEOMAE_MAP, without(bare, UNUSED))))
    head = {name.removeprefix("classifier."): bare[name] for name in bare if name.startswith("classifier.")}
    return Translated(tensors=translated.tensors, unknown=translated.unknown, head=head)


def _bare(tensors: Tensors) -> dict[str, Tensor]:
    bare = {}
    for name, tensor in tensors.items():
        for prefix in MODELS:
            name = name.removeprefix(prefix)
        bare[name] = tensor
    return bare


def _fused(translated: Translated) -> Translated:
    return Translated(tensors=fuse_qkv(translated.tensors), unknown=translated.unknown)


def _separate_biases(translated: Translated) -> Translated:
    """VideoMAE has biases of query and value alone; in memory the library names them as if there were a third."""
    biases = {"query.bias": "q_bias", "value.bias": "v_bias"}
    renamed = {
        re.sub(r"(?<=\.attention\.)(query|value)\.bias$", lambda match: biases[match[0]], name): tensor
        for name, tensor in translated.tensors.items()
    }
    return Translated(tensors=renamed, unknown=translated.unknown)


def _patch_rank(tensors: Tensors) -> int:
    patch = _bare(tensors).get("embeddings.patch_embeddings.projection.weight")
    return 0 if patch is None else patch.ndim


def _holds_clip(tensors: Tensors) -> bool:
    return "embeddings.patch_embedding.weight" in _bare(tensors)


def _holds_ast(tensors: Tensors) -> bool:
    return _patch_rank(tensors) == 4 and "embeddings.distillation_token" in _bare(tensors)


def _holds_vit(tensors: Tensors) -> bool:
    return _patch_rank(tensors) == 4 and not _holds_ast(tensors)


def _holds_videomae(tensors: Tensors) -> bool:
    return _patch_rank(tensors) == 5


HF_CLIP = Layout(name="CLIP of Hugging Face", families=(CLIP,), holds=_holds_clip, translate=from_hf_clip)
HF_AST = Layout(name="AST of Hugging Face", families=(AST,), holds=_holds_ast, translate=from_hf_vit)
HF_VIT = Layout(name="ViT of Hugging Face", families=(ViT,), holds=_holds_vit, translate=from_hf_vit)
HF_VIDEOMAE = Layout(
    name="VideoMAE of Hugging Face", families=(VideoMAE,), holds=_holds_videomae, translate=from_hf_videomae
)
