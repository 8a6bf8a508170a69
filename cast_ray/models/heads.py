"""How clip features become class scores.

CAST, arXiv 2311.18825, equation 6 and appendix A. Legend: B batch, D width, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from cast_ray.labels import LABEL
from cast_ray.models.experts.adapter import Adapter

__all__ = ["CompositionalHead", "SingleLabelHead"]


def _classifier(width: int, num_classes: int) -> nn.Linear:
    linear = nn.Linear(width, num_classes)
    nn.init.trunc_normal_(linear.weight, std=0.02)
    nn.init.zeros_(linear.bias)
    return linear


class SingleLabelHead(nn.Module):
    """One classifier on the sum of all experts' features, each through an adapter without skip."""

    def __init__(self, experts: tuple[str, ...], width: int, num_classes: int) -> None:
        super().__init__()
        self.adapters = nn.ModuleDict({name: Adapter(width, skip=False) for name in experts})
        self.classify = nn.ModuleDict({LABEL: _classifier(width, num_classes)})

    def forward(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Features [B, D] by expert to {'label': logits [B, C]}."""
        mixed = sum(adapter(features[name]) for name, adapter in self.adapters.items())
        return {LABEL: self.classify[LABEL](mixed)}


class CompositionalHead(nn.Module):
    """One classifier per label field, each on the feature of one expert.

    Args:
        read_from: the expert that each field is read from, e.g. {'verb': 'temporal', 'noun': 'spatial'}.
        width: D.
        num_classes: number of classes of each field; its order is the order of the result.
    """

    def __init__(self, read_from: Mapping[str, str], width: int, num_classes: Mapping[str, int]) -> None:
        super().__init__()
        self.read_from = dict(read_from)
        self.classify = nn.ModuleDict({field: _classifier(width, count) for field, count in num_classes.items()})

    def forward(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Features [B, D] by expert to logits [B, C] by field."""
        return {field: classify(features[self.read_from[field]]) for field, classify in self.classify.items()}
