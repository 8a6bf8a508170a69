"""How a clip is damaged on purpose, step by step: time, space and sound.

Everything is pure and works on decoded media at the size that the network sees. The random numbers of a clip do not
depend on the level, so that a stronger level damages what a weaker one did, and more.
Shapes: T frames, S x S pixels, N samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cast_ray.data.randomness import rng_for
from cast_ray.data.sound import HOP, WINDOW

__all__ = [
    "CORRUPTIONS",
    "Corruption",
    "Name",
    "blank",
    "blur",
    "corrupt",
    "freeze",
    "mute",
    "noise",
    "reverse",
    "shuffle",
]

Frames = NDArray[np.uint8]
Samples = NDArray[np.int16]
Name = Literal["shuffle", "reverse", "freeze", "blank", "blur", "noise", "mute"]

SHARES = (0.25, 0.5, 0.75, 1.0)
FULL_SCALE = 32767
KERNEL_REACH = 4.0
"""Standard deviations at which the blur's kernel ends."""


def shuffle(frames: Frames, share: float, rng: np.random.Generator) -> Frames:
    """A share of the frames [T, S, S, 3], at random places, change places among themselves; each of them moves."""
    places = rng.permutation(len(frames))[: _count(share, len(frames))]
    shuffled = frames.copy()
    shuffled[places] = frames[np.roll(places, 1)]
    return shuffled


def reverse(frames: Frames, share: float, rng: np.random.Generator) -> Frames:
    """A run of a share of the frames [T, S, S, 3], at a random place, is played backwards."""
    run = _run(len(frames), share, rng)
    reversed_run = frames.copy()
    reversed_run[run] = frames[run][::-1]
    return reversed_run


def freeze(frames: Frames, share: float, rng: np.random.Generator) -> Frames:
    """A share of the frames [T, S, S, 3] is lost and shows the last one before that is not; never the first.

    All of them lost, the clip is a still picture of its first frame.
    """
    lost = 1 + rng.permutation(len(frames) - 1)[: _count(share, len(frames) - 1)]
    shown = np.arange(len(frames))
    shown[lost] = 0
    return frames[np.maximum.accumulate(shown)]


def blank(frames: Frames, share: float, rng: np.random.Generator) -> Frames:
    """A share of the frames [T, S, S, 3], at random places, is black."""
    blanked = frames.copy()
    blanked[rng.permutation(len(frames))[: _count(share, len(frames))]] = 0
    return blanked


def blur(frames: Frames, share: float, rng: np.random.Generator) -> Frames:
    """Gaussian blur of [T, S, S, 3]; its standard deviation is a share of S, beyond the edge the edge goes on."""
    size = frames.shape[1]
    matrix = _blur_matrix(size, share * size)
    blurred = np.einsum("yi,tijc,xj->tyxc", matrix, frames.astype(np.float32), matrix, optimize=True)
    return np.clip(np.rint(blurred), 0, 255).astype(np.uint8)


def noise(samples: Samples, snr_db: float, rng: np.random.Generator) -> Samples:
    """Sound [N] with white noise of `snr_db` decibels less power than the sound; silence stays.

    Where the sum would not fit into 16 bits it is all made quieter, so that the ratio holds.
    """
    sound, drawn = samples.astype(np.float64), rng.standard_normal(len(samples))
    power = np.square(sound).mean() if len(sound) else 0.0
    if not power:
        return samples
    mixed = sound + drawn * math.sqrt(power / np.square(drawn).mean() / 10 ** (snr_db / 10))
    return np.rint(mixed * min(1.0, FULL_SCALE / np.abs(mixed).max())).astype(np.int16)


def mute(samples: Samples, share: float, rng: np.random.Generator) -> Samples:
    """A run of a share of the sound [N], at a random place, is silent."""
    muted = samples.copy()
    muted[_run(len(samples), share, rng)] = 0
    return muted


@dataclass(frozen=True, kw_only=True)
class Corruption:
    """One kind of damage, and the levels at which it is looked at, from weak to strong."""

    name: Name
    does: str
    """In a few words."""
    asks: str
    """What a loss of accuracy says about the model."""
    medium: Literal["video", "audio"]
    damage: Callable[[Any, float, np.random.Generator], Any]
    """From media, level and random numbers to damaged media."""
    levels: tuple[float, ...]
    unit: str

    def label(self, level: float) -> str:
        """The level as text, without its unit."""
        return f"{level:g}" if self.unit == DECIBELS else f"{100 * level:g}"


DECIBELS = "signal-to-noise ratio, dB"

_ALL = (
    Corruption(
        name="shuffle",
        does="frames in random order",
        asks="does it use the order of frames?",
        medium="video",
        damage=shuffle,
        levels=SHARES,
        unit="% of the frames",
    ),
    Corruption(
        name="reverse",
        does="a run of frames played backwards",
        asks="does it use the direction of time?",
        medium="video",
        damage=reverse,
        levels=SHARES,
        unit="% of the frames",
    ),
    Corruption(
        name="freeze",
        does="lost frames show the one before",
        asks="does it need motion, or is one frame enough?",
        medium="video",
        damage=freeze,
        levels=SHARES,
        unit="% of the frames after the first",
    ),
    Corruption(
        name="blank",
        does="lost frames are black",
        asks="does it need pictures at all?",
        medium="video",
        damage=blank,
        levels=SHARES,
        unit="% of the frames",
    ),
    Corruption(
        name="blur",
        does="Gaussian blur",
        asks="does it use fine detail in space?",
        medium="video",
        damage=blur,
        levels=(0.01, 0.02, 0.04, 0.08, 0.16),
        unit="sigma, % of the frame's side",
    ),
    Corruption(
        name="noise",
        does="white noise in the sound",
        asks="does it use sound, and through noise?",
        medium="audio",
        damage=noise,
        levels=(30.0, 20.0, 10.0, 0.0, -10.0),
        unit=DECIBELS,
    ),
    Corruption(
        name="mute",
        does="a run of the sound is silent",
        asks="does it use sound?",
        medium="audio",
        damage=mute,
        levels=SHARES,
        unit="% of the sound",
    ),
)

CORRUPTIONS: Mapping[Name, Corruption] = {corruption.name: corruption for corruption in _ALL}
"""Every kind of damage by name."""


def corrupt(
    batch: Mapping[str, NDArray[Any]], corruption: Corruption, level: float, *, seed: int
) -> dict[str, NDArray[Any]]:
    """A batch of `cast_ray.data.loader.ClipLoader`, of clips with one view, whose media are damaged.

    The random numbers are keyed by (seed, clip id, kind of damage). A clip without sound stays without.
    """
    column = "frames" if corruption.medium == "video" else "audio"
    damaged = batch[column].copy()
    for row, clip_id in enumerate(batch["clip_id"].tolist()):
        rng = rng_for(seed, 0, clip_id, f"analysis {corruption.name}")
        if corruption.medium == "video":
            damaged[row] = corruption.damage(batch[column][row], level, rng)
            continue
        columns = int(batch["audio_columns"][row])
        heard = slice(0, (columns - 1) * HOP + WINDOW if columns else 0)  # what follows is padding, and not looked at
        damaged[row, heard] = corruption.damage(batch[column][row, heard], level, rng)
    return {**batch, column: damaged}


def _count(share: float, of: int) -> int:
    return round(share * of)


def _run(length: int, share: float, rng: np.random.Generator) -> slice:
    count = _count(share, length)
    start = int(rng.random() * (length - count + 1))
    return slice(start, start + count)


def _blur_matrix(size: int, sigma: float) -> NDArray[np.float32]:
    """[S, S] weights that blur one axis."""
    offsets = np.arange(-math.ceil(KERNEL_REACH * sigma), math.ceil(KERNEL_REACH * sigma) + 1)
    kernel = np.exp(-0.5 * np.square(offsets / sigma))
    matrix = np.zeros((size, size))
    for row in range(size):
        np.add.at(matrix[row], np.clip(row + offsets, 0, size - 1), kernel / kernel.sum())
    return matrix.astype(np.float32)
