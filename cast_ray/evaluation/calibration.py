"""Whether a model's probabilities can be believed: reliability bins and the expected calibration error."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Reliability", "calibration_error", "reliability"]

NUM_BINS = 15
"""As in Guo et al., "On calibration of modern neural networks" (2017)."""


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """The data of a reliability diagram: clips by the probability of the predicted class; arrays [bins]."""

    edges: npt.NDArray[np.float64]
    """[bins + 1] from 0 to 1, at equal distances; a bin holds its upper edge and not its lower one."""
    count: npt.NDArray[np.int64]
    confidence: npt.NDArray[np.float64]
    """Mean probability of the predicted class; NaN in an empty bin."""
    accuracy: npt.NDArray[np.float64]
    """Fraction of right predictions; NaN in an empty bin."""


def reliability(
    true: npt.NDArray[np.int64], probabilities: npt.NDArray[np.float32], *, bins: int = NUM_BINS
) -> Reliability:
    """Sort clips into bins of equal width by the probability of their predicted class.

    Args:
        true: [n] class indices.
        probabilities: [n, classes].
        bins: how many.
    """
    predicted = probabilities.argmax(axis=1)
    confidence = np.take_along_axis(probabilities, predicted[:, None], axis=1)[:, 0].astype(np.float64)
    edges = np.linspace(0, 1, bins + 1)
    place = np.searchsorted(edges[1:-1], confidence)
    count = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        return Reliability(
            edges=edges,
            count=count,
            confidence=np.bincount(place, confidence, minlength=bins) / count,
            accuracy=np.bincount(place, predicted == true, minlength=bins) / count,
        )


def calibration_error(data: Reliability) -> float:
    """Expected calibration error: mean over clips of the gap between confidence and accuracy in the clip's bin."""
    filled = data.count > 0
    gaps = np.abs(data.confidence - data.accuracy)[filled]
    return float(np.average(gaps, weights=data.count[filled]))
