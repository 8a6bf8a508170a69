"""How well the validation split is recognised during training: counts that add up over workers."""

from __future__ import annotations

import statistics
from collections.abc import Mapping

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from cast_ray.labels import ACTION, NOUN, VERB

__all__ = ["ValidationCounts", "score", "top1_by_field"]


class ValidationCounts:
    """Sums over one pass of the validation split; `reduce` adds them up over all workers."""

    def __init__(self, fields: tuple[str, ...], device: torch.device) -> None:
        self._fields = fields
        self._columns = ["clips", "loss", *fields, *([ACTION] if {VERB, NOUN} <= set(fields) else [])]
        self._sums = torch.zeros(len(self._columns), dtype=torch.float64, device=device)

    def add(self, logits: Mapping[str, Tensor], labels: Mapping[str, Tensor], valid: Tensor) -> None:
        """Count one batch: logits per field [B, C], labels per field [B], valid [B]; invalid rows do not count."""
        right = {field: (logits[field].argmax(-1) == labels[field]) & valid for field in self._fields}
        losses = sum(F.cross_entropy(logits[field].float(), labels[field], reduction="none") for field in self._fields)
        values = [valid.sum(), torch.where(valid, losses, 0.0).sum(), *(hits.sum() for hits in right.values())]
        if ACTION in self._columns:
            values.append((right[VERB] & right[NOUN]).sum())
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


def top1_by_field(figures: Mapping[str, float]) -> dict[str, float]:
    """The top-1 accuracies among figures of a validation or an evaluation, by label field."""
    return {name.removesuffix("_top1"): value for name, value in figures.items() if name.endswith("_top1")}


def score(validation: Mapping[str, float]) -> float:
    """The figure by which the best checkpoint is chosen: action top-1 for verb + noun, else the fields' mean top-1."""
    top1 = top1_by_field(validation)
    if set(top1) == {VERB, NOUN, ACTION}:
        return top1[ACTION]
    return statistics.mean(value for field, value in top1.items() if field != ACTION)
