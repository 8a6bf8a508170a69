"""How the object of a clip moves: a latent trajectory whose law is symmetric under time reversal.

The object has four axes: x, y, size and angle. Each follows a phase in [0, 1]. The verb's axis drifts in one direction;
where position or size reach the end of their range they begin again at the other end, as in a video game where what
leaves on one side enters on the other. The other axes wobble: there and back, with no net change.

By construction:

* Every phase is uniform at every frame, and the four phases of a frame are independent, whatever the verb is: a single
  frame, first, last or any, carries no information about the verb.
* The second verb of a pair is drawn as the reverse of the first: the unordered frames of a clip carry no information
  about the direction. They may hint at the axis, so no reader of unordered frames can be right in more than half of
  the clips; wobble makes the hint vague.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cast_ray.data.synthetic.classes import partner

__all__ = ["Motion", "draw_motion"]

FloatArray = NDArray[np.float64]

CENTRE_RANGE = (0.2, 0.8)
"""Where the object's centre may be, as a fraction of the frame."""
RADIUS_RANGE = (0.2, 0.38)
"""The object's radius as a fraction of the frame; the size axis is its logarithm."""
DRIFT = (0.5, 0.8)
"""How far the verb's axis travels, as a fraction of its range (for the angle: of a full turn)."""
WOBBLE = (0.1, 0.1, 0.1, 0.05)
"""Largest amplitude of x, y, size and angle when they are not the verb's axis, in the same unit."""
DIRECTION = (-1.0, -1.0, 1.0, 1.0)
"""In which direction the first verb of each pair drifts: left, up, larger, clockwise."""
ANGLE = 3


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
    """Draw a motion of class `verb` over `num_frames` frames.

    With the same generator state, a verb and its partner give motions that are each other's reverse.
    """
    first = min(verb, partner(verb))
    verb_axis = first // 2
    start = rng.uniform(size=len(WOBBLE))
    swing = np.stack([amplitude * _there_and_back(rng, num_frames) for amplitude in WOBBLE])
    # Folding keeps a uniform phase uniform: a wobble bounces off the end of the range, where a drift begins again.
    phase = 1.0 - np.abs(2.0 * (start[:, None] + swing) % 2.0 - 1.0)
    phase[ANGLE] = start[ANGLE] + swing[ANGLE]
    phase[verb_axis] = (start[verb_axis] + DIRECTION[verb_axis] * _one_way(rng, num_frames)) % 1.0
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
    """A rising path [T] from 0; it begins late, ends early and is faster at one end, all by random amounts."""
    begin, end = rng.uniform(0.0, 0.2), rng.uniform(0.8, 1.0)
    time = np.clip((np.linspace(0.0, 1.0, num_frames) - begin) / (end - begin), 0.0, 1.0)
    bend = rng.uniform(-0.5, 0.5)
    return rng.uniform(*DRIFT) * (time + bend * time * (1.0 - time))


def _there_and_back(rng: np.random.Generator, num_frames: int) -> FloatArray:
    """One period [T] of a sinusoid of random phase and an amplitude of at most 1."""
    time = np.arange(num_frames) / num_frames
    return rng.uniform() * np.sin(2.0 * np.pi * (time + rng.uniform()))
