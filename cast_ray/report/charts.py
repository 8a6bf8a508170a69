"""What is drawn, apart from how: charts as plain data, which become interactive plots and picture files alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["COLOURS", "BarChart", "Bars", "Chart", "Line", "LineChart", "MatrixChart", "Points", "shortened"]

Points: TypeAlias = list[tuple[float, float]]

# Each has a contrast of at least 3:1 on the white and on the dark surface.
COLOURS = ("#3f7cf0", "#d0722a", "#2a9570", "#a463d8", "#d4497f", "#8a8423", "#2f93ad", "#8c7a6b")
"""Of runs, in their order; of label fields where there is one run."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """Points joined in order."""

    name: str
    points: Points
    colour: int
    """Index into `COLOURS`."""
    style: Literal["solid", "dashed", "faint"] = "solid"
    """Faint lines cannot be hovered over, and have no entry in the legend."""
    listed: bool = True
    """Whether there is an entry in the legend."""


@dataclass(frozen=True, kw_only=True)
class LineChart:
    """Lines over a common axis; there is at least one."""

    title: str
    x: str
    y: str
    lines: tuple[Line, ...]
    y_format: str = ".4~g"
    """In d3's notation, for hovering."""
    fraction: bool = False
    """The values are from 0 to 1 and shown as percentages."""


@dataclass(frozen=True, kw_only=True)
class Bars:
    """One value for each label of a chart."""

    name: str
    values: tuple[float, ...]
    colour: int
    ends: tuple[tuple[float, float], ...] = ()
    """Ends of the interval of each value, if there are any."""


@dataclass(frozen=True, kw_only=True)
class BarChart:
    """Values of named things; rows from the top if horizontal, else columns from the left."""

    title: str
    value: str
    """Title of the value axis, with the unit."""
    labels: tuple[str, ...]
    series: tuple[Bars, ...]
    horizontal: bool = True
    dots: bool = False
    """Dots instead of bars."""
    notes: tuple[str, ...] = ()
    """For each label what hovering tells beside the values."""
    limits: tuple[float, float] | None = None
    """Ends of the value axis; None: as the values need."""
    decimals: int = 1


@dataclass(frozen=True, kw_only=True)
class MatrixChart:
    """A confusion matrix, as the cells that have clips."""

    title: str
    names: tuple[str, ...]
    """Of the classes."""
    cells: npt.NDArray[np.int64]
    """[cells, 3]: true class, predicted class, clips."""
    support: npt.NDArray[np.int64]
    """[classes] clips of each true class."""
    orders: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Title -> the classes to show, in this order; the first is shown at first."""


Chart: TypeAlias = LineChart | BarChart | MatrixChart


def shortened(name: str, most: int) -> str:
    """The name, cut to `most` characters with dots if it is longer."""
    return name if len(name) <= most else f"{name[: most - 3].rstrip()}..."
