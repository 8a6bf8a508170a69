"""Which classes are taken for which: confusion matrices that stay readable with hundreds of classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cast_ray.report.charts import MatrixChart

__all__ = ["Mistake", "confusion_chart", "frequent_mistakes", "neighbour_order"]

FEW_CLASSES = 40
"""Up to so many, all classes are shown at first; of more, as many of the most confused ones."""


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """One class that is taken for another."""

    true: int
    predicted: int
    clips: int


def confusion_chart(confusion: npt.NDArray[np.int64], names: Sequence[str], *, title: str) -> MatrixChart:
    """The matrix with the orders in which its classes can be shown.

    Args:
        confusion: [classes, classes] clip counts, true class in the row.
        names: of the classes.
        title: of the chart.
    """
    rows, columns = np.nonzero(confusion)
    num_classes, together = len(names), neighbour_order(confusion)
    orders = {"in label order": tuple(range(num_classes)), "confused classes side by side": together}
    if num_classes > FEW_CLASSES:
        orders = {f"all {num_classes} classes, {name}": order for name, order in orders.items()}
        orders = {f"the {FEW_CLASSES} most confused classes": most_confused(confusion, FEW_CLASSES)} | orders
    return MatrixChart(
        title=title,
        names=tuple(names),
        cells=np.stack([rows, columns, confusion[rows, columns]], axis=1),
        support=confusion.sum(axis=1),
        orders=orders,
    )


def most_confused(confusion: npt.NDArray[np.int64], count: int) -> tuple[int, ...]:
    """`count` classes: those of the most frequent mistakes, side by side with what they are confused with."""
    chosen: dict[int, None] = {}
    for mistake in frequent_mistakes(confusion, most=count * count):
        if len(chosen) + len({mistake.true, mistake.predicted} - chosen.keys()) <= count:
            chosen |= {mistake.true: None, mistake.predicted: None}
    for index in np.argsort(-confusion.sum(axis=1), kind="stable").tolist():
        if len(chosen) < count:
            chosen.setdefault(index)
    kept = np.array(list(chosen))
    return tuple(kept[list(neighbour_order(confusion[np.ix_(kept, kept)]))].tolist())


def neighbour_order(confusion: npt.NDArray[np.int64]) -> tuple[int, ...]:
    """All classes so that each stands, as far as possible, beside the one that it is most often confused with.

    Greedy: the class with the most mistakes first, then always the class most confused with the last one, or, if that
    is confused with none that is left, with any one before; classes without mistakes keep their order at the end.
    """
    both = (confusion + confusion.T).astype(np.float64)
    np.fill_diagonal(both, 0)
    left = np.ones(len(both), bool)
    order: list[int] = []
    near = np.zeros(len(both))
    while left.any():
        last = both[order[-1]] if order else near
        for candidates in (last, near, both.sum(axis=1)):
            allowed = np.where(left, candidates, -1.0)
            if allowed.max() > 0:
                break
        best = int(allowed.argmax())
        order.append(best)
        left[best] = False
        near += both[best]
    return tuple(order)


def frequent_mistakes(confusion: npt.NDArray[np.int64], *, most: int) -> list[Mistake]:
    """The `most` most frequent ones, as far as there are any."""
    mistakes = confusion - np.diag(confusion.diagonal())
    order = np.argsort(-mistakes, axis=None, kind="stable")[:most]
    cells = [(int(row), int(column)) for row, column in zip(*np.unravel_index(order, mistakes.shape), strict=True)]
    return [
        Mistake(true=row, predicted=column, clips=int(mistakes[row, column]))
        for row, column in cells
        if mistakes[row, column]
    ]
