"""What all experts have in common: token layout, sizes, blocks, read-out, and which of their tensors are tuned.

Legend: B batch, T time steps, S special tokens per step, N patches per step, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

from torch import Tensor, nn

from cast_ray.errors import UserError
from cast_ray.models.attention import Window
from cast_ray.models.experts.adapter import BOTTLENECK
from cast_ray.models.experts.block import Block

__all__ = ["Expert", "ExpertSize", "TokenLayout", "init_patches", "make_blocks"]

PATCH_GAIN = 3.5
"""Standard deviation of a new patch embedding's weights, times the square root of its fan-in."""


@dataclass(frozen=True, kw_only=True)
class ExpertSize:
    """Sizes of one expert; they must be equal for experts that exchange features.

    Raises:
        UserError: a size is not positive, or two sizes do not fit together.
    """

    img_size: int = 224
    """Height and width of the frames, pixels."""
    patch_size: int = 16
    """Height and width of a patch, pixels."""
    num_frames: int = 16
    """Frames of a clip that enter the model."""
    tubelet_size: int = 2
    """Frames per time step: the temporal expert's patches span as many, the spatial expert sees the last of each."""
    width: int = 768
    """Channels of a token."""
    depth: int = 12
    """Number of blocks."""
    num_heads: int = 12
    """Attention heads."""
    mlp_ratio: int = 4
    """Width of the feed-forward layer's middle, as a multiple of `width`."""
    drop_path_rate: float = 0.0
    """Chance of dropping a trainable branch in the last block; it grows linearly from 0 in the first."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name != "drop_path_rate" and not (isinstance(value, int) and value > 0):
                raise UserError(f"{name} is {value!r}; give a positive whole number")
        if not 0 <= self.drop_path_rate < 1:
            raise UserError(f"drop_path_rate is {self.drop_path_rate}; give a number from 0 to below 1")
        self._check_divides("img_size", "patch_size")
        self._check_divides("num_frames", "tubelet_size")
        self._check_divides("width", "num_heads")
        if self.width % BOTTLENECK:
            raise UserError(f"width is {self.width}; adapters need a multiple of {BOTTLENECK}")

    def _check_divides(self, whole: str, part: str) -> None:
        if getattr(self, whole) % getattr(self, part):
            raise UserError(
                f"{whole} {getattr(self, whole)} is not a multiple of {part} {getattr(self, part)}; change one of them"
            )

    @property
    def steps(self) -> int:
        return self.num_frames // self.tubelet_size

    @property
    def patches(self) -> int:
        return (self.img_size // self.patch_size) ** 2

    @property
    def drop_path_rates(self) -> tuple[float, ...]:
        return tuple(self.drop_path_rate * index / max(1, self.depth - 1) for index in range(self.depth))

    @property
    def clip_shape(self) -> tuple[int, int, int, int]:
        return 3, self.num_frames, self.img_size, self.img_size


@dataclass(frozen=True, kw_only=True)
class TokenLayout:
    """How an expert's tokens [B, steps, special + patches, D] are arranged; all that an exchange needs to know."""

    steps: int
    special: int
    patches: int


class Expert(nn.Module):
    """A stack of transformer blocks over its own tokens, useful alone or inside a `Network`.

    Its adapters start as identities, so a fresh expert with foreign weights computes what the foreign model does.

    Args:
        embedding: module from a clip [B, 3, T, H, W] to tokens [B, steps, special + patches, D].
        blocks: the blocks.
        norm: final norm, applied after pooling.
        layout: arrangement of the tokens.
        clip_shape: the one clip shape (without batch) that `embedding` is made for.
    """

    def __init__(
        self,
        *,
        embedding: nn.Module,
        blocks: list[Block],
        norm: nn.LayerNorm,
        layout: TokenLayout,
        clip_shape: tuple[int, int, int, int],
    ) -> None:
        super().__init__()
        self.embedding = embedding
        # Typed by what it holds: nn.ModuleList itself only promises modules.
        self.blocks = cast(Sequence[Block], nn.ModuleList(blocks))
        self.norm = norm
        self.layout = layout
        self.clip_shape = clip_shape

    def embed(self, clip: Tensor) -> Tensor:
        """Tokens [B, steps, special + patches, D] of normalised clips [B, 3, T, H, W].

        Raises:
            ValueError: the clip has another shape than the expert was built for.
        """
        if tuple(clip.shape[1:]) != self.clip_shape:
            raise ValueError(f"clip batch has shape {tuple(clip.shape)}, the model takes [B, *{self.clip_shape}]")
        return self.embedding(clip)

    def pool(self, x: Tensor) -> Tensor:
        """Clip feature [B, D]: mean over the special tokens, or over all patches where there are none; then norm."""
        tokens = x[:, :, : self.layout.special] if self.layout.special else x
        return self.norm(tokens.flatten(1, 2).mean(dim=1))

    def forward(self, clip: Tensor) -> Tensor:
        """Clip feature [B, D] of this expert without any exchange."""
        x = self.embed(clip)
        for block in self.blocks:
            x = block(x)
        return self.pool(x)

    def tuned_names(self) -> tuple[str, ...]:
        """Names of the parameters that train while the expert itself is frozen: adapters and the final norm."""
        return tuple(name for name, _ in self.named_parameters() if "_adapter." in name or name.startswith("norm."))


def make_blocks(
    size: ExpertSize,
    *,
    window: Window,
    key_bias: bool,
    activation: Callable[[], nn.Module],
    norm_eps: float,
) -> list[Block]:
    """The blocks of one expert, with weights for training from scratch.

    Weights are drawn with CLIP's depth- and width-aware scales instead of a fixed 0.02, which suits only a width
    near 768 and starves the residual branches of a tiny model. Biases start at zero, norms as identities.
    """
    blocks = [
        Block(
            size.width,
            size.num_heads,
            mlp_width=size.width * size.mlp_ratio,
            window=window,
            key_bias=key_bias,
            activation=activation,
            norm_eps=norm_eps,
            drop_path=rate,
        )
        for rate in size.drop_path_rates
    ]
    into_residual = (2 * size.width * size.depth) ** -0.5
    for block in blocks:
        _init_linear(block.attention.qkv, std=size.width**-0.5)
        _init_linear(block.attention.project, std=into_residual)
        _init_linear(block.mlp.fc1, std=(2 * size.width) ** -0.5)
        _init_linear(block.mlp.fc2, std=into_residual)
    return blocks


def init_patches(patch: nn.Conv2d | nn.Conv3d) -> None:
    """Draw the weights of a patch embedding for training from scratch.

    Neighbouring pixels are alike, so that a patch says less than its number of pixels promises, and the position
    table hides what PyTorch's default (a gain of 0.58) makes of it. docs/log.md has the figures.
    """
    fan_in = patch.weight[0].numel()
    nn.init.normal_(patch.weight, std=PATCH_GAIN * fan_in**-0.5)


def _init_linear(linear: nn.Linear, *, std: float) -> None:
    nn.init.trunc_normal_(linear.weight, std=std, a=-2 * std, b=2 * std)
    if linear.bias is not None:
        nn.init.zeros_(linear.bias)
