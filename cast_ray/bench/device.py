"""What the device can do: its name, its rate of matrix products, and how much memory was in use."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from cast_ray.bench.resident import reset_resident_peak, resident_peak

__all__ = ["PEAK_MEMORY", "describe", "matmul_rate", "peak_memory", "reset_peak_memory", "timed"]

PEAK_MEMORY = {
    "cpu": "largest resident set of the measuring process, in bytes: weights, activations, PyTorch itself",
    "cuda": "torch.cuda.max_memory_allocated, in bytes: weights, activations and workspaces, not the CUDA context",
}
"""What `peak_memory` means, by kind of device."""

MATMUL_SIDE = {"cpu": 2048, "cuda": 8192}
"""Rows and columns of the matrices that are multiplied: large enough that the rate no longer grows."""
LIBRARIES = ("torch", "timm", "cast-ray")


def timed(device: torch.device, action: Callable[[], object]) -> float:
    """Seconds that an action takes, its work on the device included."""
    _wait(device)
    started = time.perf_counter()
    action()
    _wait(device)
    return time.perf_counter() - started


def matmul_rate(device: torch.device, dtype: torch.dtype, *, repeats: int = 10, side: int | None = None) -> float:
    """Multiply-adds per second of a large square matrix product, the best of several.

    The best, because other programs can only slow it down; random content, because zeros take less power and run faster
    than real data.
    """
    side = MATMUL_SIDE[device.type] if side is None else side
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    out = torch.empty_like(left)
    seconds = [timed(device, lambda: torch.mm(left, right, out=out)) for _ in range(repeats + 2)]
    return side**3 / min(seconds[2:])


def reset_peak_memory(device: torch.device) -> None:
    """Let `peak_memory` start anew from what is in use now."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        reset_resident_peak()


def peak_memory(device: torch.device) -> int:
    """Bytes as `PEAK_MEMORY` explains."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else resident_peak()


def describe(device: torch.device) -> dict[str, Any]:
    """Hardware, versions and commit, for whoever compares two measurements."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "system": platform.platform(),
        "python": platform.python_version(),
        **{name: version(name) for name in LIBRARIES},
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "commit": _commit(),
    }


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _commit() -> str | None:
    """Commit of the source tree, with a mark if files were changed; None where it is no git checkout."""
    folder = Path(__file__).parent
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip() or None
