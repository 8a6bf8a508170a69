"""How sure a figure is: percentile confidence intervals of figures and of their differences, by resampling clips.

A resample draws n of the n clips with replacement (Efron, 1979). Clips that are alike in all that the figures look at -
class, right or wrong in each of them - need no telling apart, so that a resample is one multinomial draw of how many
clips of each kind there are: the same distribution, for thousands of kinds instead of a hundred thousand clips. All
figures of one call see the same resamples, so that differences between runs are paired clip by clip.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cast_ray.evaluation.figures import Figure

__all__ = ["Interval", "Replicates", "harmonic_replicates", "interval", "replicates"]

Replicates = npt.NDArray[np.float64]

CELLS_AT_ONCE = 2**22
"""Numbers of clips drawn at once, about 100 MB with what is computed from them."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A figure with the ends of its confidence interval, all in the figure's own unit."""

    value: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether a difference is more than chance in the choice of clips."""
        return self.low > 0 or self.high < 0


def replicates(figures: Mapping[str, Figure], *, resamples: int, seed: int) -> dict[str, Replicates]:
    """Every figure in every resample, [resamples]; NaN where a resample has no clip that counts.

    Args:
        figures: over the same clips in the same order; of several runs, if they are to be compared.
        resamples: how many.
        seed: the same seed and clips give the same numbers, whatever the order of the clips.
    """
    kinds, counts = _kinds(figures)
    n, rng = int(counts.sum()), np.random.default_rng(seed)
    measures = [_measure(figure, kinds) for figure in figures.values()]
    found = np.empty((resamples, len(figures)))
    step = max(1, CELLS_AT_ONCE // len(counts))
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        drawn = rng.multinomial(n, counts / n, size=size).astype(np.float64)
        for column, measure in enumerate(measures):
            found[start : start + size, column] = measure(drawn)
    return dict(zip(figures, found.T, strict=True))


def interval(value: float, resampled: Replicates, *, level: float) -> Interval:
    """The percentile interval of a figure.

    Args:
        value: of the figure itself.
        resampled: in each resample.
        level: share of the distribution inside, such as 0.95.
    """
    if np.isnan(resampled).all():
        return Interval(value=value, low=float("nan"), high=float("nan"))
    low, high = np.nanquantile(resampled, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value=value, low=float(low), high=float(high))


def harmonic_replicates(parts: list[Replicates]) -> Replicates:
    """The harmonic mean in each resample; 0 where a part is 0."""
    values = np.stack(parts)
    with np.errstate(divide="ignore"):
        return len(parts) / (1 / values).sum(axis=0)


def _kinds(figures: Mapping[str, Figure]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """A clip of each kind [kinds], and how many there are of it [kinds]; in an order that only the kinds determine."""
    columns: dict[bytes, npt.NDArray] = {}
    for figure in figures.values():
        for column in (figure.right, figure.counted, figure.classes):
            if column is not None:
                columns.setdefault(column.tobytes(), column)
    code = np.zeros(len(next(iter(columns.values()))), np.int64)
    for column in columns.values():
        # Small again after each column, so that the product never overflows.
        _, code = np.unique(code * (int(column.max()) + 1) + column, return_inverse=True)
    _, first, counts = np.unique(code, return_index=True, return_counts=True)
    return first, counts


def _measure(figure: Figure, kinds: npt.NDArray[np.int64]) -> Callable[[Replicates], Replicates]:
    """The function from numbers of clips of each kind [resamples, kinds] to the figure [resamples]."""
    counted = np.ones(len(kinds)) if figure.counted is None else figure.counted[kinds].astype(np.float64)
    right = counted * figure.right[kinds]
    if figure.classes is None:

        def share(drawn: Replicates) -> Replicates:
            with np.errstate(invalid="ignore"):
                return (drawn @ right) / (drawn @ counted)

        return share
    classes = figure.classes[kinds]
    order = np.argsort(classes, kind="stable")
    starts = np.flatnonzero(np.diff(classes[order], prepend=-1))

    def class_mean(drawn: Replicates) -> Replicates:
        drawn = drawn[:, order]
        clips = np.add.reduceat(drawn * counted[order], starts, axis=1)
        hits = np.add.reduceat(drawn * right[order], starts, axis=1)
        with np.errstate(invalid="ignore"):
            return (hits / np.maximum(clips, 1)).sum(axis=1) / (clips > 0).sum(axis=1)

    return class_mean
