"""What the sound track of a clip is: one of four kinds of sound, unrelated to what is seen."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from cast_ray.data.synthetic.classes import SOUNDS

__all__ = ["SAMPLE_RATE", "draw_sound"]

FloatArray = NDArray[np.float64]

SAMPLE_RATE = 16_000
"""Samples per second; one channel."""


def draw_sound(rng: np.random.Generator, sound: int, duration_s: float) -> NDArray[np.int16]:
    """Draw a sound track [samples] of class `sound`; pitch, rhythm, loudness and hiss vary from clip to clip."""
    time = np.arange(round(duration_s * SAMPLE_RATE)) / SAMPLE_RATE
    wave = _WAVES[SOUNDS[sound]](rng, time)
    hiss = rng.uniform(0.0, 0.03) * rng.standard_normal(len(time))
    return np.clip(32767 * (rng.uniform(0.2, 0.6) * wave + hiss), -32768, 32767).astype(np.int16)


def _tone(rng: np.random.Generator, time: FloatArray) -> FloatArray:
    return np.sin(2 * np.pi * rng.uniform(200, 2000) * time)


def _sweep(rng: np.random.Generator, time: FloatArray) -> FloatArray:
    low, octaves = rng.uniform(150, 500), rng.uniform(1.5, 3.0)
    pitch = low * 2.0 ** (octaves * np.linspace(0.0, 1.0, len(time)))
    return np.sin(2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE)


def _bursts(rng: np.random.Generator, time: FloatArray) -> FloatArray:
    gate = (rng.uniform(2, 5) * time + rng.uniform()) % 1.0 < 0.4
    return 0.5 * rng.standard_normal(len(time)) * gate


def _clicks(rng: np.random.Generator, time: FloatArray) -> FloatArray:
    rate = rng.uniform(4, 10)
    since = ((rate * time + rng.uniform()) % 1.0) / rate
    return np.exp(-since * 400) * np.sin(2 * np.pi * rng.uniform(1500, 4000) * since)


_WAVES: dict[str, Callable[[np.random.Generator, FloatArray], FloatArray]] = {
    "tone": _tone,
    "sweep": _sweep,
    "bursts": _bursts,
    "clicks": _clicks,
}
