"""How the object of a clip moves: a latent trajectory whose law is symmetric under time reversal.

The object has four axes: x, y, size and tilt. Each follows a phase in [0, 1]. The verb's axis drifts in one direction;
where it reaches the end of its range it begins again at the other end, as in a video game where what leaves on one
side enters on the other. The other axes, the tilt among them always, wobble: there and back, with no net change.

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

CENTRE_RANGE = (0.25, 0.75)
"""Where the object's centre may be, as a fraction of the frame."""
RADIUS_RANGE = (0.17, 0.42)
"""The object's radius as a fraction of the frame; the size axis is its logarithm."""
TILT_RANGE = (-np.pi / 3, np.pi / 3)
"""How far the object may lean to either side, in radians."""
DRIFT = ((0.5, 0.8), (0.5, 0.8), (0.6, 0.9))
"""How far the verb's axis (x, y or size) travels, as a fraction of its range."""
DIRECTION = (-1.0, -1.0, 1.0)
"""In which direction the first verb of each pair drifts: left, up, larger."""
NUM_AXES = 4
WOBBLE = 0.08
"""Largest amplitude of an axis that is not the verb's, as a fraction of its range."""


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
    start = rng.uniform(size=(NUM_AXES, 1))
    swing = WOBBLE * np.stack([_there_and_back(rng, num_frames) for _ in range(NUM_AXES)])
    # Folding keeps a uniform phase uniform: a wobble bounces off the end of the range, where a drift begins again.
    phase = 1.0 - np.abs(2.0 * (start + swing) % 2.0 - 1.0)
    drift = rng.uniform(*DRIFT[verb_axis]) * _one_way(rng, num_frames)
    phase[verb_axis] = (start[verb_axis] + DIRECTION[verb_axis] * drift) % 1.0
    low, high = CENTRE_RANGE
    small, large = RADIUS_RANGE
    left, right = TILT_RANGE
    motion = Motion(
        verb=first,
        x=low + (high - low) * phase[0],
        y=low + (high - low) * phase[1],
        radius=small * (large / small) ** phase[2],
        angle=left + (right - left) * phase[3],
    )
    return motion if verb == first else motion.reversed()


def _one_way(rng: np.random.Generator, num_frames: int) -> FloatArray:
    """A rising path [T] from 0 to 1; it begins late, ends early and is faster at one end, all by random amounts."""
    begin, end = rng.uniform(0.0, 0.2), rng.uniform(0.8, 1.0)
    time = np.clip((np.linspace(0.0, 1.0, num_frames) - begin) / (end - begin), 0.0, 1.0)
    bend = rng.uniform(-0.5, 0.5)
    return time + bend * time * (1.0 - time)


def _there_and_back(rng: np.random.Generator, num_frames: int) -> FloatArray:
    """One period [T] of a sinusoid of random phase and an amplitude of at most 1."""
    time = np.arange(num_frames) / num_frames
    return rng.uniform() * np.sin(2.0 * np.pi * (time + rng.uniform()))
