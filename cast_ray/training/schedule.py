"""Which learning rate applies at which step: linear warm-up, then a cosine or drops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from cast_ray.config import OptimConfig

__all__ = ["dropping_rates", "learning_rates", "rates_of_run"]


def rates_of_run(optim: OptimConfig, *, global_batch: int, steps_per_epoch: int) -> np.ndarray:
    """Learning rate of every optimiser step that a configuration describes; shape [epochs * steps_per_epoch]."""
    steps, warmup_steps = optim.epochs * steps_per_epoch, round(optim.warmup_epochs * steps_per_epoch)
    peak = optim.peak_lr(global_batch)
    if optim.schedule == "cosine":
        final = optim.last_lr(global_batch)
        return learning_rates(steps=steps, warmup_steps=warmup_steps, peak=peak, final=final)
    drops = [epoch * steps_per_epoch for epoch in optim.drop_epochs]
    return dropping_rates(steps=steps, warmup_steps=warmup_steps, peak=peak, drops=drops, factor=optim.drop_factor)


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


def dropping_rates(*, steps: int, warmup_steps: int, peak: float, drops: Sequence[int], factor: float) -> np.ndarray:
    """Learning rates that stay at `peak` after the warm-up and are multiplied by `factor` at every drop.

    Args:
        steps: length of the whole run.
        warmup_steps: steps of the linear warm-up from 0, part of `steps`; it ends as that of `learning_rates`.
        peak: highest learning rate.
        drops: first steps that are taken at the next lower rate; those past the end are never reached.
        factor: of every drop.

    Returns:
        [steps] float64
    """
    rates = peak * factor ** np.searchsorted(np.asarray(drops), np.arange(steps), side="right")
    rates[:warmup_steps] = np.minimum(np.linspace(0.0, peak, warmup_steps), rates[:warmup_steps])
    return rates
