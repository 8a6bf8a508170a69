"""What is minimised: cross-entropy with soft targets, summed over the label fields."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["soft_cross_entropy"]


def soft_cross_entropy(logits: Mapping[str, Tensor], targets: Mapping[str, Tensor], valid: Tensor) -> Tensor:
    """Cross-entropy of each label field, added up (CAST paper, appendix A: verb and noun weigh the same).

    An invalid row (an unreadable clip, or padding) adds nothing, but it still counts in the mean. The denominator is
    then the same on every worker, so that the gradient of a global batch does not depend on how it is divided.

    Args:
        logits: per field [B, C].
        targets: per field [B, C], rows that sum to 1.
        valid: [B], bool.

    Returns:
        Scalar, in float32.
    """
    total = torch.zeros((), device=valid.device)
    for field, scores in logits.items():
        log_probabilities = F.log_softmax(scores.float(), dim=-1)
        row_losses = torch.where(valid, -(targets[field] * log_probabilities).sum(-1), 0.0)
        total = total + row_losses.mean()
    return total
