"""How good predictions are: accuracies and confusion matrices, as pure functions of the predictions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cast_ray.evaluation.predictions import Predictions
from cast_ray.labels import ACTION, NOUN, VERB

__all__ = ["FieldMetrics", "Metrics", "confusion_matrix", "evaluate", "top_k_accuracy"]

TOP_K = 5


@dataclass(frozen=True, kw_only=True)
class FieldMetrics:
    """The quality of one label field; all accuracies are fractions from 0 to 1."""

    top1: float
    top5: float | None
    """None when the field has fewer than five classes."""
    mean_class_accuracy: float
    """Mean of the accuracies within each class that has clips, whatever their number."""
    chance: float
    """Top-1 accuracy of guessing uniformly among the classes."""
    confusion: npt.NDArray[np.int64]
    """[classes, classes] clip counts: true class in the row, predicted class in the column."""


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """The quality of a model on a set of clips."""

    num_clips: int
    fields: Mapping[str, FieldMetrics]
    action_top1: float | None
    """Fraction of clips with verb and noun both right; None unless there are both fields."""
    action_chance: float | None
    """Product of the fields' chance levels."""

    def summary(self) -> dict[str, float]:
        """All accuracies under flat names such as `verb_top1`, for logs and JSON."""
        flat: dict[str, float] = {}
        for field, metrics in self.fields.items():
            flat[f"{field}_top1"] = metrics.top1
            if metrics.top5 is not None:
                flat[f"{field}_top5"] = metrics.top5
            flat[f"{field}_mean_class_accuracy"] = metrics.mean_class_accuracy
        if self.action_top1 is not None:
            flat[f"{ACTION}_top1"] = self.action_top1
        return flat


def evaluate(predictions: Predictions) -> Metrics:
    """All metrics of the predictions."""
    fields: dict[str, FieldMetrics] = {}
    for field, num_classes in predictions.label_map.num_classes.items():
        true, probabilities = predictions.true(field), predictions.probabilities[field]
        confusion = confusion_matrix(true, predictions.predicted(field), num_classes)
        clips_per_class = confusion.sum(axis=1)
        present = clips_per_class > 0
        fields[field] = FieldMetrics(
            top1=top_k_accuracy(true, probabilities, 1),
            top5=top_k_accuracy(true, probabilities, TOP_K) if num_classes >= TOP_K else None,
            mean_class_accuracy=float((confusion.diagonal()[present] / clips_per_class[present]).mean()),
            chance=1 / num_classes,
            confusion=confusion,
        )
    compositional = {VERB, NOUN} <= fields.keys()
    return Metrics(
        num_clips=len(predictions.clip_ids),
        fields=fields,
        action_top1=float(predictions.right(VERB, NOUN).mean()) if compositional else None,
        action_chance=fields[VERB].chance * fields[NOUN].chance if compositional else None,
    )


def top_k_accuracy(true: npt.NDArray[np.int64], probabilities: npt.NDArray[np.float32], k: int) -> float:
    """Fraction of rows whose true class is among the k most probable ones; the lower index wins a tie.

    Args:
        true: [n] class indices.
        probabilities: [n, classes], in any monotone scale.
        k: how many classes count as a hit.
    """
    of_truth = np.take_along_axis(probabilities, true[:, None], axis=1)
    before = np.arange(probabilities.shape[1]) < true[:, None]
    rank = ((probabilities > of_truth) | ((probabilities == of_truth) & before)).sum(axis=1)
    return float((rank < k).mean())


def confusion_matrix(
    true: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64], num_classes: int
) -> npt.NDArray[np.int64]:
    """[classes, classes] counts: true class in the row, predicted class in the column."""
    return np.bincount(true * num_classes + predicted, minlength=num_classes**2).reshape(num_classes, num_classes)
