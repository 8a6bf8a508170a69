"""Which learning rate applies at which step: linear warm-up, then a cosine."""

from __future__ import annotations

import numpy as np

__all__ = ["learning_rates"]


def learning_rates(*, steps: int, warmup_steps: int, peak: float, final: float, start: float = 0.0) -> np.ndarray:
    """Learning rate of every optimiser step of a run.

    The warm-up includes both ends, so the first step is taken at `start` (0 changes nothing) and both the last
    warm-up step and the first one after it at `peak`. The cosine would reach `final` one step after the last.

    Args:
        steps: length of the whole run.
        warmup_steps: steps of the linear warm-up, part of `steps`.
        peak: highest learning rate.
        final: learning rate towards which the cosine falls.
        start: learning rate of the first warm-up step.

    Returns:
        [steps] float64

    Raises:
        ValueError: the warm-up is negative or longer than the run.
    """
    if not 0 <= warmup_steps <= steps:
        raise ValueError(f"warmup_steps is {warmup_steps}, but the run has {steps} steps; use 0 to {steps}")
    warmup = np.linspace(start, peak, warmup_steps)
    progress = np.arange(steps - warmup_steps) / max(1, steps - warmup_steps)
    return np.concatenate([warmup, final + 0.5 * (peak - final) * (1 + np.cos(np.pi * progress))])
