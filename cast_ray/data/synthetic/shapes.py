"""What the objects look like: one shape with its pattern per noun, drawn with soft edges.

A shape lives in object coordinates: it faces +x, y points down and it fits into the unit circle. None looks the same
after a rotation of less than a full turn, so that the tilt is visible for every noun. A distance is negative inside.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from cast_ray.data.synthetic.classes import NOUNS

__all__ = ["Shape", "draw_shape"]

FloatArray = NDArray[np.floating]
Shape = Callable[[FloatArray, FloatArray], tuple[FloatArray, FloatArray]]
"""Object coordinates u, v -> signed distance to the outline, and to the part that has the second colour."""


def draw_shape(
    noun: int, u: FloatArray, v: FloatArray, *, softness: float, rim: float
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Coverage of the object with its rim, of the object alone, and of its second colour; in [0, 1], shaped like `u`.

    Args:
        noun: index into `NOUNS`.
        u: object coordinate along the facing direction.
        v: object coordinate across it.
        softness: width of the edges in object units; one pixel makes them smooth.
        rim: width of the rim around the outline, in object units.
    """
    outline, second = _SHAPES[NOUNS[noun]](u, v)
    return _inside(outline - rim, softness), _inside(outline, softness), _inside(second, softness)


def _inside(distance: FloatArray, softness: float) -> FloatArray:
    return np.clip(0.5 - distance / softness, 0.0, 1.0)


def _box(u: FloatArray, v: FloatArray, left: float, top: float, right: float, bottom: float) -> FloatArray:
    across = np.abs(u - 0.5 * (left + right)) - 0.5 * (right - left)
    return np.maximum(across, np.abs(v - 0.5 * (top + bottom)) - 0.5 * (bottom - top))


def _arrow(u: FloatArray, v: FloatArray) -> tuple[FloatArray, FloatArray]:
    head = np.maximum(0.707 * (u + np.abs(v)) - 0.66, -u)
    return np.minimum(head, _box(u, v, -0.95, -0.25, 0.1, 0.25)), u


def _disc(u: FloatArray, v: FloatArray) -> tuple[FloatArray, FloatArray]:
    return np.hypot(u, v) - 0.85, v


def _corner(u: FloatArray, v: FloatArray) -> tuple[FloatArray, FloatArray]:
    foot = _box(u, v, -0.75, 0.2, 0.75, 0.75)
    return np.minimum(foot, _box(u, v, -0.75, -0.75, -0.2, 0.75)), u + v


def _comb(u: FloatArray, v: FloatArray) -> tuple[FloatArray, FloatArray]:
    spine = _box(u, v, -0.75, -0.8, -0.25, 0.8)
    teeth = np.maximum(_box(u, v, -0.4, -0.8, 0.75, 0.8), 0.16 - np.abs(np.abs(v) - 0.325))
    return np.minimum(spine, teeth), -spine


def _key(u: FloatArray, v: FloatArray) -> tuple[FloatArray, FloatArray]:
    ring = np.abs(np.hypot(u + 0.42, v) - 0.38) - 0.17
    blade = np.minimum(_box(u, v, 0.0, -0.17, 0.97, 0.17), _box(u, v, 0.6, 0.0, 0.97, 0.5))
    return np.minimum(ring, blade), -0.05 - u


def _flag(u: FloatArray, v: FloatArray) -> tuple[FloatArray, FloatArray]:
    cloth = _box(u, v, -0.55, -0.8, 0.8, 0.25)
    pole = _box(u, v, -0.8, -0.8, -0.5, 0.95)
    return np.minimum(cloth, pole), _box(u, v, 0.1, -0.8, 0.8, -0.25)


_SHAPES: dict[str, Shape] = {
    "arrow": _arrow,
    "disc": _disc,
    "corner": _corner,
    "comb": _comb,
    "key": _key,
    "flag": _flag,
}
