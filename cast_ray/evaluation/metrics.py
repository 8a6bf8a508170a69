"""How good predictions are: accuracies, per-class figures, confusion matrices; pure functions of the predictions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cast_ray.errors import UserError
from cast_ray.evaluation.actions import action_hits
from cast_ray.evaluation.calibration import calibration_error, reliability
from cast_ray.evaluation.predictions import Predictions
from cast_ray.labels import ACTION, NOUN, VERB

__all__ = [
    "TOP_K",
    "FieldMetrics",
    "Metrics",
    "PerClass",
    "check_labelled",
    "confusion_matrix",
    "evaluate",
    "harmonic_mean",
    "per_class",
    "top_k_accuracy",
    "top_k_hits",
]

TOP_K = 5


@dataclass(frozen=True, kw_only=True)
class PerClass:
    """The quality of each class of a field; arrays [classes], fractions from 0 to 1.

    Where a fraction has nothing below the line, it is 0, as with scikit-learn's `zero_division=0`: the recall of a
    class without clips, the precision of one that is never predicted.
    """

    support: npt.NDArray[np.int64]
    """Clips of the class."""
    predicted: npt.NDArray[np.int64]
    """Clips that were said to be of the class."""
    precision: npt.NDArray[np.float64]
    recall: npt.NDArray[np.float64]
    """Also the accuracy within the class."""
    f1: npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class FieldMetrics:
    """The quality of one label field; all accuracies are fractions from 0 to 1."""

    top1: float
    top5: float | None
    """None when the field has fewer than five classes."""
    mean_class_accuracy: float
    """Mean of the accuracies within each class that has clips, whatever their number."""
    calibration_error: float
    """Expected calibration error; see `cast_ray.evaluation.calibration`."""
    chance: float
    """Top-1 accuracy of guessing uniformly among the classes."""
    confusion: npt.NDArray[np.int64]
    """[classes, classes] clip counts: true class in the row, predicted class in the column."""
    per_class: PerClass


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """The quality of a model on a set of clips."""

    num_clips: int
    fields: Mapping[str, FieldMetrics]
    action_top1: float | None
    """Fraction of clips whose verb-noun pair has the highest product of probabilities; None unless there are both
    fields. It is always the fraction of clips with verb and noun both right."""
    action_top5: float | None
    """Fraction of clips whose pair is among the five highest of all pairs; not that of verb and noun both in their five
    best, which is higher. None if there are fewer than five pairs."""
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
        actions = {f"{ACTION}_top1": self.action_top1, f"{ACTION}_top5": self.action_top5}
        return flat | {name: value for name, value in actions.items() if value is not None}


def evaluate(predictions: Predictions) -> Metrics:
    """All metrics of the predictions; `UserError` if the truth of a clip is unknown."""
    check_labelled(predictions)
    fields: dict[str, FieldMetrics] = {}
    for field, num_classes in predictions.label_map.num_classes.items():
        true, probabilities = predictions.true(field), predictions.probabilities[field]
        confusion = confusion_matrix(true, predictions.predicted(field), num_classes)
        classes = per_class(confusion)
        fields[field] = FieldMetrics(
            top1=top_k_accuracy(true, probabilities, 1),
            top5=top_k_accuracy(true, probabilities, TOP_K) if num_classes >= TOP_K else None,
            mean_class_accuracy=float(classes.recall[classes.support > 0].mean()),
            calibration_error=calibration_error(reliability(true, probabilities)),
            chance=1 / num_classes,
            confusion=confusion,
            per_class=classes,
        )
    hits = action_hits(predictions, (1, TOP_K)) if {VERB, NOUN} <= fields.keys() else None
    chance = fields[VERB].chance * fields[NOUN].chance if hits is not None else None
    return Metrics(
        num_clips=len(predictions.clip_ids),
        fields=fields,
        action_top1=None if hits is None else float(hits[1].mean()),
        action_top5=None if hits is None or chance is None or TOP_K * chance > 1 else float(hits[TOP_K].mean()),
        action_chance=chance,
    )


def check_labelled(predictions: Predictions) -> None:
    """Raise `UserError` if the truth of a clip is unknown."""
    unknown = np.flatnonzero(~predictions.labelled)
    if len(unknown):
        raise UserError(
            f"{len(unknown)} clips of {len(predictions.clip_ids)} have no true label, such as "
            f"'{predictions.clip_ids[unknown[0]]}'; give predictions for clips with annotations to measure accuracy"
        )


def harmonic_mean(*values: float) -> float:
    """The harmonic mean of accuracies over tasks or datasets, as in table 2 of the CAST paper (arXiv 2311.18825).

    It is 0 if one of them is 0: a model that fails one task is not saved by the others.
    """
    if min(values) <= 0:
        return 0.0
    return len(values) / sum(1 / value for value in values)


def top_k_hits(true: npt.NDArray[np.int64], probabilities: npt.NDArray[np.float32], k: int) -> npt.NDArray[np.bool_]:
    """[n] whether the true class is among the k most probable ones; the lower index wins a tie.

    Args:
        true: [n] class indices.
        probabilities: [n, classes], in any monotone scale.
        k: how many classes count as a hit.
    """
    of_truth = np.take_along_axis(probabilities, true[:, None], axis=1)
    before = np.arange(probabilities.shape[1]) < true[:, None]
    rank = ((probabilities > of_truth) | ((probabilities == of_truth) & before)).sum(axis=1)
    return rank < k


def top_k_accuracy(true: npt.NDArray[np.int64], probabilities: npt.NDArray[np.float32], k: int) -> float:
    """Fraction of rows that `top_k_hits` counts."""
    return float(top_k_hits(true, probabilities, k).mean())


def confusion_matrix(
    true: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64], num_classes: int
) -> npt.NDArray[np.int64]:
    """[classes, classes] counts: true class in the row, predicted class in the column."""
    return np.bincount(true * num_classes + predicted, minlength=num_classes**2).reshape(num_classes, num_classes)


def per_class(confusion: npt.NDArray[np.int64]) -> PerClass:
    """Precision, recall and F1 of each class from the counts of `confusion_matrix`."""
    right, support, predicted = confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0)
    return PerClass(
        support=support,
        predicted=predicted,
        precision=_fraction(right, predicted),
        recall=_fraction(right, support),
        f1=_fraction(2 * right, support + predicted),
    )


def _fraction(part: npt.NDArray[np.int64], whole: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    return part / np.maximum(whole, 1)
