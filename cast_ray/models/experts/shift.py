"""How a frame-wise ViT sees neighbouring frames: parts of the tokens are taken from the frame after or before.

MSCA (Hashiguchi and Tamaki, ACCV 2022 workshops) and TokenShift (arXiv 2108.02432), as released; the patch axis of
MSCA is our reading of the paper, whose code has the head axis only.
Legend: B batch, T frames, N tokens of a frame with the class token first, D width, H heads.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cast_ray.errors import UserError
from cast_ray.models.spec import Shift

__all__ = ["ProjectionShift", "TokenShift", "shift_in_time"]

DEFAULT_SHARE = 12
"""One twelfth of heads or patches looks ahead, one twelfth back: MSCA's released setting (1 + 1 of 12 heads)."""
DEFAULT_TOKEN_SHARE = 4
"""TokenShift moves a quarter of the class token's channels each way."""


def shift_in_time(x: Tensor, offset: int, *, keep_boundary: bool) -> Tensor:
    """Frame t of the result is frame t + offset of x [B, T, ...]; offset is 1 or -1.

    A frame without such a neighbour becomes zero, or stays itself if `keep_boundary`.
    """
    edge = x[:, -1:] if offset == 1 else x[:, :1]
    if not keep_boundary:
        edge = torch.zeros_like(edge)
    return torch.cat([x[:, 1:], edge], dim=1) if offset == 1 else torch.cat([edge, x[:, :-1]], dim=1)


class ProjectionShift(nn.Module):
    """MSCA: replaces parts of queries, keys or values [B, T, N, D] by those of the next and the previous frame.

    Args:
        shift: which projections, along which axis, how much.
        num_heads: H; the channels of a head are neighbours in D.
        patches: N without the class token.

    Raises:
        UserError: a share above 0 is less than one head or patch.
    """

    def __init__(self, shift: Shift, *, num_heads: int, patches: int) -> None:
        super().__init__()
        self.shift = shift
        self.num_heads = num_heads
        self.keep = shift.boundary == "keep"
        units = num_heads if shift.axis == "head" else patches
        self.count = _count(shift.ratio, units, f"{shift.axis}s", usual=DEFAULT_SHARE)
        if shift.axis == "patch":
            ahead, back = _patch_masks(shift, patches, self.count)
            self.register_buffer("ahead", ahead, persistent=False)
            self.register_buffer("back", back, persistent=False)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if not self.count:
            return query, key, value
        move = self._heads if self.shift.axis == "head" else self._patches
        query, key, value = (
            move(x) if name in self.shift.of else x for name, x in (("q", query), ("k", key), ("v", value))
        )
        return query, key, value

    def _heads(self, x: Tensor) -> Tensor:
        """The first heads look at the next frame, the last ones at the previous frame."""
        channels = self.count * x.shape[-1] // self.num_heads
        return torch.cat(
            [
                shift_in_time(x[..., :channels], 1, keep_boundary=self.keep),
                x[..., channels:-channels],
                shift_in_time(x[..., -channels:], -1, keep_boundary=self.keep),
            ],
            dim=-1,
        )

    def _patches(self, x: Tensor) -> Tensor:
        ahead, back = self.get_buffer("ahead")[:, None], self.get_buffer("back")[:, None]
        x_ahead = shift_in_time(x, 1, keep_boundary=self.keep)
        x_back = shift_in_time(x, -1, keep_boundary=self.keep)
        return torch.where(ahead, x_ahead, torch.where(back, x_back, x))

    def extra_repr(self) -> str:
        return f"{self.shift}, count={self.count}"


class TokenShift(nn.Module):
    """Replaces channels of the class token of [B, T, N, D] on the trunk, before the residual branch leaves it.

    Args:
        shift: the amount and the boundary.
        width: D.

    Raises:
        UserError: a share above 0 is less than one channel.
    """

    def __init__(self, shift: Shift, *, width: int) -> None:
        super().__init__()
        self.keep = shift.boundary == "keep"
        self.channels = _count(shift.ratio, width, "channels", usual=DEFAULT_TOKEN_SHARE)

    def forward(self, x: Tensor) -> Tensor:
        token, rest, count = x[:, :, :1], x[:, :, 1:], self.channels
        shifted = [
            shift_in_time(token[..., :count], 1, keep_boundary=self.keep),
            shift_in_time(token[..., count : 2 * count], -1, keep_boundary=self.keep),
            token[..., 2 * count :],
        ]
        return torch.cat([torch.cat(shifted, dim=-1), rest], dim=2)

    def extra_repr(self) -> str:
        return f"channels={self.channels}"


def _count(ratio: float | None, units: int, what: str, *, usual: int) -> int:
    """How many of the units a share is, rounded down; without a ratio, one in `usual`."""
    share = 1 / usual if ratio is None else ratio
    count = int(units * share + 1e-9)
    if share and not count:
        raise UserError(
            f"a share of {share:.3g} of {units} {what} is less than one, so nothing would be shifted; give a larger "
            "shift_ratio, or 0 for a plain ViT"
        )
    return count


def _patch_masks(shift: Shift, patches: int, count: int) -> tuple[Tensor, Tensor]:
    """Which of the [N] tokens come from the next and from the previous frame."""
    if shift.pattern == "blocks":
        ahead, back = torch.arange(count), torch.arange(patches - count, patches)
    else:
        spread = torch.arange(2 * count) * patches // max(2 * count, 1)
        ahead, back = spread[::2], spread[1::2]
    masks = []
    for chosen in (ahead, back):
        mask = torch.zeros(1 + patches, dtype=torch.bool)
        mask[1 + chosen] = True
        masks.append(mask)
    masks[0][0] = shift.class_token and count > 0
    return masks[0], masks[1]
