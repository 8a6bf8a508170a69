"""Rows as a run posts them."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from rich.console import Console

Row = dict


@pytest.fixture
def step_row() -> Callable[..., Row]:
    """A row about steps of four workers on a CPU, of which the last one is short of data."""

    def step_row(**changes: object) -> Row:
        workers = {
            "clips_per_s": [25.5, 25.5, 25.5, 24.5],
            "data_wait": [0.0, 0.0, 0.1, 0.4],
            "memory": [2.1e9, 2.0e9, 2.0e9, 2.0e9],
            "gpu_memory": [0, 0, 0, 0],
        }
        row = {
            "kind": "step",
            "step": 120,
            "epoch": 1.5,
            "loss": 2.3456,
            "learning_rate": 1.5e-3,
            "clips_per_s": 101.0,
            "data_wait": 0.125,
            "grad_norm": 0.5,
            "unreadable": 0,
            "seconds_left": 3725.4,
            "bad_clips": 0,
            "workers": workers,
        }
        return row | changes

    return step_row


@pytest.fixture
def epoch_row() -> Row:
    validation = {"clips": 30.0, "loss": 1.5, "verb_top1": 0.5, "noun_top1": 0.25, "action_top1": 0.125}
    return {"kind": "epoch", "epoch": 2, "step": 160, "validation": validation}


@pytest.fixture
def reached() -> Callable[..., Row]:
    def reached(milestone: str, at: float, step: int = 0) -> Row:
        return {"kind": "reached", "milestone": milestone, "at": at, "step": step}

    return reached


@pytest.fixture
def terminal() -> Console:
    """A terminal of 80 columns that keeps what is written to it."""
    return Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None)


@pytest.fixture
def log() -> Console:
    """A pipe or file."""
    return Console(file=io.StringIO(), width=80)
