"""How any plain ViT of timm becomes a frame-wise expert: EVA-02 and EVA-CLIP, DINOv2, DeiT, SigLIP and others.

timm's own modules do the work; they are only taken apart, so that an exchange fits between attention and feed-forward.
An expert reads out what the model does: class token, class and distillation token, or the mean over patches. Models
that pool by attention (SigLIP, Perception Encoder) are the exception: here the mean over their normed patches is read.
Legend: B batch, T frames, U frames that are looked at (one per time step), S special tokens, N patches, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import timm
import torch
from einops import rearrange
from timm.models.deit import VisionTransformerDistilled
from timm.models.eva import Eva, EvaAttention, EvaBlock
from timm.models.vision_transformer import Block as VitBlock
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from cast_ray.errors import UserError
from cast_ray.models.experts.block import Block
from cast_ray.models.experts.expert import Expert, TokenLayout
from cast_ray.models.experts.frames import pick_frames
from cast_ray.models.spec import VIDEO, TimmViT, VideoInput

__all__ = ["timm_expert", "timm_sizes"]

BODY = ("blocks", "norm", "fc_norm", "head", "head_drop", "attn_pool")
"""Parts of a timm model that do not stand before its blocks."""


class TimmEmbedding(nn.Module):
    """What a timm ViT does before its blocks, for one frame per time step."""

    def __init__(self, vit: VisionTransformer | Eva, *, frames_per_step: int) -> None:
        super().__init__()
        self.frames_per_step = frames_per_step
        self.grid = tuple(vit.patch_embed.grid_size)
        self.size = vit.patch_embed.img_size[0]
        for name in BODY:
            if hasattr(vit, name):
                setattr(vit, name, nn.Identity())
        self.vit = vit

    def forward(self, clip: Tensor) -> Tensor:
        """Clip [B, 3, T, H, W] to tokens [B, U, S + N, D]."""
        x = self.vit.patch_embed(pick_frames(clip, frames_per_step=self.frames_per_step, size=self.size))
        x = self.vit._pos_embed(x)
        if isinstance(x, tuple):  # EVA: tokens, rotary embedding
            x = x[0]
        return rearrange(self.vit.norm_pre(x), "(b u) n d -> b u n d", b=clip.shape[0])


class TimmBranch(nn.Module):
    """timm's attention or feed-forward layer on [B, U, S + N, D], frame by frame.

    Args:
        inner: timm's module.
        scale: LayerScale's factors [D], or None.
        rope: rotary embedding of the model's grid, or None. It is registered in the embedding, not here.
    """

    def __init__(self, inner: nn.Module, scale: nn.Parameter | None, rope: Any = None) -> None:
        super().__init__()
        self.inner = inner
        self.scale = scale
        self._rope = (rope,)  # in a tuple, so that the module is not registered once per block

    def forward(self, x: Tensor) -> Tensor:
        (rope,) = self._rope
        given: dict[str, Tensor] = {} if rope is None else {"rope": rope.get_embed()}
        _match_key_bias(self.inner)
        y = self.inner(x.flatten(0, 1), **given).unflatten(0, x.shape[:2])
        return y if self.scale is None else y * self.scale


def _match_key_bias(module: nn.Module) -> None:
    """Give the zeros that EvaAttention joins with its biases the dtype of these.

    They are a buffer: DeepSpeed in bf16 casts parameters only, and the joined bias would stay float32.
    """
    if isinstance(module, EvaAttention) and module.k_bias is not None and module.k_bias.dtype != module.q_bias.dtype:
        module.k_bias = module.k_bias.to(module.q_bias.dtype)


def timm_sizes(model: str) -> dict[str, int]:
    """The sizes of a timm model as fields of a `TimmViT`.

    Raises:
        UserError: timm has no such model, or it is no plain ViT.
    """
    with torch.device("meta"):
        vit = _create(model)
    attention = vit.blocks[0].attn
    return {
        "patch_size": vit.patch_embed.patch_size[0],
        "width": vit.embed_dim,
        "depth": len(vit.blocks),
        "num_heads": attention.num_heads,
    }


def timm_expert(spec: TimmViT, video: VideoInput, *, side: int, drop_path_rates: Sequence[float]) -> Expert:
    """A timm ViT as an expert; sizes of the specification that differ from the model's own change the model.

    Raises:
        UserError: timm has no such model, or it is no plain ViT.
    """
    vit = _create(
        spec.model,
        img_size=side * spec.patch_size,
        patch_size=spec.patch_size,
        embed_dim=spec.width,
        depth=spec.depth,
        num_heads=spec.num_heads,
        num_classes=0,
        dynamic_img_size=False,  # else DINOv3 would need the grid, and compute its rotary embedding, in every block
    )
    special = vit.num_prefix_tokens
    norm_first = not isinstance(vit.norm, nn.Identity)
    norm = vit.norm if norm_first else vit.fc_norm
    rope = getattr(vit, "rope", None)
    if rope is not None:
        rope.aug_active = False  # every block would draw its own positions
    blocks = [_block(block, spec, rope, rate) for block, rate in zip(vit.blocks, drop_path_rates, strict=True)]
    # As the model itself: some average their patches although they have a class token.
    pooled = 0 if vit.global_pool != "token" else 2 if isinstance(vit, VisionTransformerDistilled) else 1
    return Expert(
        spec=spec,
        modality=VIDEO,
        embedding=TimmEmbedding(vit, frames_per_step=video.frames_per_step),
        blocks=blocks,
        norm=norm,
        layout=TokenLayout(steps=video.steps, special=special, grid=(side, side), width=spec.width),
        input_shape=video.shape,
        pooled=pooled,
        norm_first=norm_first,
    )


def _create(model: str, **sizes: Any) -> VisionTransformer | Eva:
    if not timm.is_model(model):
        raise UserError(f"timm has no model '{model}'; timm.list_models('*vit*') and ('*eva*') name the candidates")
    try:
        vit = timm.create_model(model, **sizes)
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        raise UserError(f"timm's '{model}' cannot be built with {sizes}: {error}; choose a plain ViT") from error
    plain = isinstance(vit, VisionTransformer | Eva) and all(isinstance(x, VitBlock | EvaBlock) for x in vit.blocks)
    if not plain or getattr(vit, "rope_mixed", False):
        raise UserError(
            f"timm's '{model}' is a {type(vit).__name__}, not a plain pre-norm ViT whose blocks can be opened; choose "
            "a VisionTransformer or Eva model, such as vit_base_patch16_224 or eva02_base_patch16_clip_224"
        )
    return vit


def _block(block: VitBlock | EvaBlock, spec: TimmViT, rope: nn.Module | None, drop_path: float) -> Block:
    if isinstance(block, EvaBlock):
        scales = block.gamma_1, block.gamma_2
    else:
        scales = getattr(block.ls1, "gamma", None), getattr(block.ls2, "gamma", None)
    return Block(
        spec.width,
        attention_norm=block.norm1,
        attention=TimmBranch(block.attn, scales[0], rope if isinstance(block, EvaBlock) else None),
        mlp_norm=block.norm2,
        mlp=TimmBranch(block.mlp, scales[1]),
        adapters=spec.adapters,
        drop_path=drop_path,
    )
