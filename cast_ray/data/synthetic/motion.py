"""How the object of a clip moves: a latent trajectory whose law is symmetric under time reversal.

The object has four axes: x, y, size and angle. Each is driven by a phase that lives on a circle of circumference 1.
The verb's axis drifts round its circle in one direction (position and size jump back at the end of their range, as in
a video game where what leaves on one side enters on the other); the other axes go there and back with no net change.

Three facts hold by construction:

* Every phase starts uniformly on its circle, so at every single frame the four axes are uniform and independent
  whatever the verb is: one frame carries no information about the verb.
* The second verb of a pair is drawn as the reverse of the first, so the unordered frames of a clip carry no
  information about the direction.
* The other axes visit ranges similar to the verb's, so unordered frames say little about which axis it is.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cast_ray.data.synthetic.classes import partner

__all__ = ["Motion", "draw_motion"]

FloatArray = NDArray[np.float64]

NUM_AXES, ANGLE = 4, 3
CENTRE_RANGE = (0.25, 0.75)
"""Where the object's centre may be, as a fraction of the frame."""
RADIUS_RANGE = (0.17, 0.32)
"""The object's radius as a fraction of the frame; the size axis is its logarithm."""
DRIFT = (0.45, 0.75)
"""How much of its circle the verb's axis travels during a clip."""
WOBBLE = (0.05, 0.30)
"""Amplitude of the other axes as a fraction of their circle; each goes this far to both sides."""


@dataclass(frozen=True, kw_only=True)
class Motion:
    """Position, size and angle of the object in every frame; each array is [T]."""

    verb: int
    x: FloatArray
    """Centre from the left edge, as a fraction of the frame."""
    y: FloatArray
    """Centre from the top edge, as a fraction of the frame."""
    radius: FloatArray
    """As a fraction of the frame."""
    angle: FloatArray
    """Radians, clockwise on the screen."""

    def reversed(self) -> Motion:
        """The same motion played backwards: a motion of the partner verb."""
        flipped = {name: getattr(self, name)[::-1] for name in ("x", "y", "radius", "angle")}
        return dataclasses.replace(self, verb=partner(self.verb), **flipped)


def draw_motion(rng: np.random.Generator, verb: int, num_frames: int) -> Motion:
    """Draw a motion of class `verb` over `num_frames` frames."""
    first = verb & ~1
    drift_axis, sign = first // 2, (-1.0, -1.0, 1.0, 1.0)[first // 2]
    start = rng.uniform(size=NUM_AXES)
    wobble = np.stack([_there_and_back(rng, num_frames) for _ in range(NUM_AXES)])
    # Folding a phase of circumference 2 keeps its law uniform and turns the jump at the end of the range into a bounce.
    phase = 1.0 - np.abs((2.0 * start[:, None] + wobble) % 2.0 - 1.0)
    phase[ANGLE] = start[ANGLE] + wobble[ANGLE]
    phase[drift_axis] = (start[drift_axis] + sign * _one_way(rng, num_frames)) % 1.0
    low, high = CENTRE_RANGE
    small, large = RADIUS_RANGE
    motion = Motion(
        verb=first,
        x=low + (high - low) * phase[0],
        y=low + (high - low) * phase[1],
        radius=small * (large / small) ** phase[2],
        angle=2.0 * np.pi * phase[ANGLE],
    )
    return motion if verb == first else motion.reversed()


def _one_way(rng: np.random.Generator, num_frames: int) -> FloatArray:
    """Rise [T] from 0 to a random part of the circle; it begins late, ends early and bends by random amounts."""
    begin, end = rng.uniform(0.0, 0.2), rng.uniform(0.8, 1.0)
    time = np.clip((np.linspace(0.0, 1.0, num_frames) - begin) / (end - begin), 0.0, 1.0)
    bend = rng.uniform(-0.5, 0.5)
    return rng.uniform(*DRIFT) * (time + bend * time * (1.0 - time))


def _there_and_back(rng: np.random.Generator, num_frames: int) -> FloatArray:
    """A sinusoid [T] of one or two periods: it ends where it began and drifts nowhere in between."""
    time = np.arange(num_frames) / num_frames
    return rng.uniform(*WOBBLE) * np.sin(2.0 * np.pi * (rng.integers(1, 3) * time + rng.uniform()))
