"""What all experts have in common: token layout, blocks, read-out, and which of their tensors are tuned.

Legend: B batch, T time steps, S special tokens per step, N patches per step, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from timm.layers import Mlp
from torch import Tensor, nn

from cast_ray.models.attention import Window
from cast_ray.models.experts.block import Block, SelfAttention
from cast_ray.models.experts.shift import ProjectionShift
from cast_ray.models.layers import redraw_linear
from cast_ray.models.spec import ExpertSpec

__all__ = ["Expert", "TokenLayout", "make_blocks"]


@dataclass(frozen=True, kw_only=True)
class TokenLayout:
    """How an expert's tokens [B, steps, special + patches, D] are arranged; all that an exchange needs to know."""

    steps: int
    special: int
    grid: tuple[int, int]
    """Rows and columns of patches in a step."""
    width: int

    @property
    def patches(self) -> int:
        return self.grid[0] * self.grid[1]


class Expert(nn.Module):
    """A stack of transformer blocks over its own tokens, useful alone or inside a `Network`.

    Its adapters start as identities, so a fresh expert with foreign weights computes what the foreign model does.

    Args:
        spec: what it was built from.
        modality: name of the network input that it reads.
        embedding: module from that input to tokens [B, steps, special + patches, D].
        blocks: the blocks.
        norm: final norm.
        layout: arrangement of the tokens.
        input_shape: the one input shape (without batch) that `embedding` is made for.
        pooled: the read-out is the mean over so many special tokens of every step; over all patches if 0.
        norm_first: whether the norm comes before the mean, or after it.
    """

    def __init__(
        self,
        *,
        spec: ExpertSpec,
        modality: str,
        embedding: nn.Module,
        blocks: list[Block],
        norm: nn.Module,
        layout: TokenLayout,
        input_shape: tuple[int, ...],
        pooled: int,
        norm_first: bool,
    ) -> None:
        super().__init__()
        self.spec = spec
        self.modality = modality
        self.embedding = embedding
        # Typed by what it holds: nn.ModuleList itself only promises modules.
        self.blocks = cast(Sequence[Block], nn.ModuleList(blocks))
        self.norm = norm
        self.layout = layout
        self.input_shape = input_shape
        self.pooled = pooled
        self.norm_first = norm_first

    def embed(self, x: Tensor) -> Tensor:
        """Tokens [B, steps, special + patches, D] of normalised clips or spectrograms.

        Raises:
            ValueError: the input has another shape than the expert was built for.
        """
        if tuple(x.shape[1:]) != self.input_shape:
            raise ValueError(
                f"{self.modality} batch has shape {tuple(x.shape)}, the model takes [B, *{self.input_shape}]"
            )
        return self.embedding(x)

    def pool(self, x: Tensor) -> Tensor:
        """Clip feature [B, D]: mean over the class tokens, or over all patches, and the final norm."""
        tokens = x[:, :, : self.pooled] if self.pooled else x[:, :, self.layout.special :]
        tokens = tokens.flatten(1, 2)
        return self.norm(tokens).mean(dim=1) if self.norm_first else self.norm(tokens.mean(dim=1))

    def forward(self, x: Tensor) -> Tensor:
        """Clip feature [B, D] of this expert without any exchange."""
        x = self.embed(x)
        for block in self.blocks:
            x = block(x)
        return self.pool(x)

    def tuned_names(self) -> tuple[str, ...]:
        """Names of the parameters that train while the expert itself is frozen: adapters and the final norm."""
        return tuple(
            name
            for name, _ in self.named_parameters()
            if "_adapter." in name or (self.spec.tune_norm and name.startswith("norm."))
        )


def make_blocks(
    spec: ExpertSpec,
    *,
    window: Window,
    key_bias: bool,
    activation: type[nn.Module],
    norm_eps: float,
    drop_path_rates: Sequence[float],
    shift: ProjectionShift | None = None,
    trunk_shift: nn.Module | None = None,
) -> list[Block]:
    """The blocks of one expert, with weights for training from scratch.

    Weights are drawn with CLIP's depth- and width-aware scales instead of a fixed 0.02, which suits only a width
    near 768 and starves the residual branches of a tiny model. Biases start at zero, norms as identities.
    """
    into_residual = (2 * spec.width * spec.depth) ** -0.5
    blocks = []
    for rate in drop_path_rates:
        attention = SelfAttention(spec.width, spec.num_heads, window=window, key_bias=key_bias, shift=shift)
        mlp = Mlp(spec.width, spec.width * spec.mlp_ratio, act_layer=activation)
        redraw_linear(attention.qkv, std=spec.width**-0.5)
        redraw_linear(attention.project, std=into_residual)
        redraw_linear(mlp.fc1, std=(2 * spec.width) ** -0.5)
        redraw_linear(mlp.fc2, std=into_residual)
        block = Block(
            spec.width,
            attention_norm=nn.LayerNorm(spec.width, eps=norm_eps),
            attention=attention,
            mlp_norm=nn.LayerNorm(spec.width, eps=norm_eps),
            mlp=mlp,
            adapters=spec.adapters,
            drop_path=rate,
            trunk_shift=trunk_shift,
        )
        blocks.append(block)
    return blocks
