"""How two clips and their labels are blended into one: mixup with soft targets, for any number of label fields.

Shapes: B clips of one micro batch, C classes of a field.
Sources: mixup (arXiv 1710.09412), with timm's batch mode: the micro batch is mixed with itself in reverse order, one
lambda for all. Compared with timm in the tests.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

__all__ = ["mix", "smooth_targets"]


def mix(
    clips: Tensor,
    targets: Mapping[str, Tensor],
    valid: Tensor,
    *,
    num_classes: Mapping[str, int],
    alpha: float,
    probability: float,
    smoothing: float,
    rng: np.random.Generator,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Mix the clips of a micro batch in pairs (first with last, and so on inwards).

    An odd batch is allowed: the middle clip stays as it is. So does a pair with a clip that is not valid.

    Args:
        clips: [B, 3, T, H, W], floating point.
        targets: class indices [B] per label field; read only where `valid`.
        valid: boolean [B]; False for padding and for clips that could not be decoded.
        num_classes: classes per label field.
        alpha: both parameters of the beta distribution of lambda; 0 switches mixing off.
        probability: chance that this micro batch is mixed.
        smoothing: label smoothing, in [0, 1).
        rng: source of lambda. Key it by the place of the micro batch in the global batch, not by the rank alone, or
            the result depends on the number of workers.

    Returns:
        Mixed clips, and per field float32 targets [B, C] that sum to 1, or are all 0 for a clip that is not valid.
    """
    mixed_up = rng.random() < probability
    weight = float(rng.beta(alpha, alpha)) if mixed_up and alpha > 0 else 1.0
    soft = {name: smooth_targets(target, valid, num_classes[name], smoothing) for name, target in targets.items()}
    if weight == 1.0:
        return clips, soft
    own = torch.where(valid & valid.flip(0), weight, 1.0).to(torch.float32)
    return _blend(clips, own), {name: _blend(target, own) for name, target in soft.items()}


def smooth_targets(target: Tensor, valid: Tensor, num_classes: int, smoothing: float) -> Tensor:
    """Class indices [B] to smoothed one-hot rows [B, C] in float32; rows of clips that are not valid are all 0.

    The right class gets 1 - smoothing + smoothing / C, every other one smoothing / C.
    """
    # Labels of padding may be any number, also outside the classes.
    safe = torch.where(valid, target, 0)
    soft = torch.full((len(target), num_classes), smoothing / num_classes, device=target.device)
    soft.scatter_(1, safe[:, None], 1.0 - smoothing + smoothing / num_classes)
    return soft * valid[:, None]


def _blend(values: Tensor, own: Tensor) -> Tensor:
    """own * values + (1 - own) * values in reverse order; in float32, which bf16 inputs need for small weights."""
    own = own.view(-1, *[1] * (values.dim() - 1))
    return (values * own + values.flip(0) * (1 - own)).to(values.dtype)
