"""How well the validation split is recognised during training: counts that add up over workers."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from cast_ray.labels import ACTION, LABEL

__all__ = ["ValidationCounts", "score"]


class ValidationCounts:
    """Sums over one pass of the validation split; `reduce` adds them up over all workers."""

    def __init__(self, fields: tuple[str, ...], device: torch.device) -> None:
        self._fields = fields
        self._columns = ["clips", "loss", *fields, *([ACTION] if len(fields) > 1 else [])]
        self._sums = torch.zeros(len(self._columns), dtype=torch.float64, device=device)

    def add(self, logits: Mapping[str, Tensor], labels: Mapping[str, Tensor], valid: Tensor) -> None:
        """Count one batch: logits per field [B, C], labels per field [B], valid [B]; invalid rows do not count."""
        right = [(logits[field].argmax(-1) == labels[field]) & valid for field in self._fields]
        losses = sum(F.cross_entropy(logits[field].float(), labels[field], reduction="none") for field in self._fields)
        values = [valid.sum(), torch.where(valid, losses, 0.0).sum(), *(hits.sum() for hits in right)]
        if ACTION in self._columns:
            values.append(torch.stack(right).all(0).sum())
        self._sums += torch.stack([value.double() for value in values])

    def reduce(self) -> dict[str, float]:
        """Mean loss and top-1 accuracies (0 to 1) over all workers' clips. A collective: every worker calls it."""
        if dist.is_initialized():
            dist.all_reduce(self._sums)
        clips, loss, *hits = self._sums.tolist()
        accuracies = {
            f"{name}_top1": count / max(clips, 1) for name, count in zip(self._columns[2:], hits, strict=True)
        }
        return {"clips": clips, "loss": loss / max(clips, 1), **accuracies}


def score(validation: Mapping[str, float]) -> float:
    """The figure by which the best checkpoint is chosen: action top-1 where there are two fields, else label top-1."""
    return validation[f"{ACTION}_top1" if f"{ACTION}_top1" in validation else f"{LABEL}_top1"]
