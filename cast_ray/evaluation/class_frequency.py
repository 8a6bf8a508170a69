"""How accuracy depends on how many training clips a class has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cast_ray.data.manifest import TRAIN
from cast_ray.data.shards import ShardedDataset
from cast_ray.errors import UserError
from cast_ray.evaluation.metrics import check_labelled
from cast_ray.evaluation.predictions import Predictions

__all__ = ["FrequencyBin", "accuracy_by_training_clips", "dataset_training_clips", "training_clips"]

EDGES = (0, 1, 10, 30, 100, 300, 1000, 3000, 10_000)
"""Lower ends of the bins."""


@dataclass(frozen=True, kw_only=True)
class FrequencyBin:
    """The classes of one bin that have test clips, and how well they are recognised."""

    low: int
    """Fewest training clips of a class in this bin."""
    high: int | None
    """Most of them; None: no limit."""
    classes: int
    clips: int
    """Test clips of these classes."""
    accuracy: float
    """Top-1 over the clips."""
    mean_class_accuracy: float


def training_clips(labels: npt.NDArray[np.int64], num_classes: int) -> npt.NDArray[np.int64]:
    """[classes] clips of each class, from the [n] training labels of one field."""
    return np.bincount(labels, minlength=num_classes)


def dataset_training_clips(dataset: ShardedDataset) -> dict[str, npt.NDArray[np.int64]]:
    """Label field -> [classes] readable training clips of a prepared dataset."""
    rows = dataset.split(TRAIN)
    labels = np.array(rows.filter(rows["num_frames"].is_valid())["labels"].to_pylist())  # the others are quarantined
    sizes = dataset.label_map.num_classes
    return {field: training_clips(labels[:, column], size) for column, (field, size) in enumerate(sizes.items())}


def accuracy_by_training_clips(
    predictions: Predictions, field: str, counts: npt.NDArray[np.int64], edges: Sequence[int] = EDGES
) -> list[FrequencyBin]:
    """Top-1 accuracy within bins of classes with about as many training clips; bins without test clips are left out.

    Args:
        predictions: of one model.
        field: label field.
        counts: [classes] training clips of each class.
        edges: lower ends of the bins, rising; the first must not be above the smallest count.

    Raises:
        UserError: `counts` is for another number of classes, or the truth of a clip is unknown.
    """
    check_labelled(predictions)
    num_classes = predictions.label_map.num_classes[field]
    if len(counts) != num_classes:
        raise UserError(f"training clips are given for {len(counts)} {field} classes, the model has {num_classes}")
    true, right = predictions.true(field), predictions.right(field)
    clips, hits = np.bincount(true, minlength=num_classes), np.bincount(true, right, minlength=num_classes)
    place = np.searchsorted(edges, counts, side="right") - 1
    found = []
    for index, low in enumerate(edges):
        inside = (place == index) & (clips > 0)
        if inside.any():
            found.append(
                FrequencyBin(
                    low=low,
                    high=edges[index + 1] - 1 if index + 1 < len(edges) else None,
                    classes=int(inside.sum()),
                    clips=int(clips[inside].sum()),
                    accuracy=float(hits[inside].sum() / clips[inside].sum()),
                    mean_class_accuracy=float((hits[inside] / clips[inside]).mean()),
                )
            )
    return found
