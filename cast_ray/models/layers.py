"""Small layers and initial values that several parts of the networks share."""

from __future__ import annotations

from typing import TypeVar

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["QuickGELU", "init_patches", "new_linear", "redraw_linear"]

Patch = TypeVar("Patch", nn.Conv2d, nn.Conv3d)

PATCH_GAIN = 3.5
"""Standard deviation of a new patch embedding's weights, times the square root of its fan-in."""


class QuickGELU(nn.Module):
    """x * sigmoid(1.702 x), the approximate GELU that OpenAI's CLIP weights were trained with."""

    def forward(self, x: Tensor) -> Tensor:
        # As silu(1.702 x) / 1.702: the backward pass then needs one tensor of this size instead of two.
        return F.silu(1.702 * x).mul_(1 / 1.702)


def new_linear(inputs: int, outputs: int, *, std: float = 0.02) -> nn.Linear:
    """A linear layer with truncated-normal weights and zero bias; `std` 0 makes the weights zero."""
    linear = nn.Linear(inputs, outputs)
    if std:
        nn.init.trunc_normal_(linear.weight, std=std)
    else:
        nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear


def redraw_linear(linear: nn.Linear, *, std: float) -> None:
    """Draw weights within two standard deviations and set the bias to zero."""
    nn.init.trunc_normal_(linear.weight, std=std, a=-2 * std, b=2 * std)
    if linear.bias is not None:
        nn.init.zeros_(linear.bias)


def init_patches(patch: Patch) -> Patch:
    """Draw the weights of a patch embedding for training from scratch.

    Neighbouring pixels are alike, so that a patch says less than its number of pixels promises, and the position
    table hides what PyTorch's default (a gain of 0.58) makes of it. docs/log.md has the figures.
    """
    fan_in = patch.weight[0].numel()
    nn.init.normal_(patch.weight, std=PATCH_GAIN * fan_in**-0.5)
    return patch
