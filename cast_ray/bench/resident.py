"""How much memory a process had at most; without torch, which alone takes hundreds of megabytes."""

from __future__ import annotations

import resource
from pathlib import Path

__all__ = ["reset_resident_peak", "resident_now", "resident_peak"]

STATUS = Path("/proc/self/status")


def resident_peak() -> int:
    """Bytes of the largest resident set since the start, or since `reset_resident_peak`."""
    # VmHWM, because ru_maxrss would include what the process was before it started this program.
    found = _status("VmHWM:")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 if found is None else found


def resident_now() -> int:
    """Bytes of the resident set."""
    found = _status("VmRSS:")
    return resident_peak() if found is None else found


def reset_resident_peak() -> None:
    """Let `resident_peak` start anew from what is in use now."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return  # some containers forbid it: the peak is then that since the process began


def _status(name: str) -> int | None:
    try:
        lines = STATUS.read_text().splitlines()
    except OSError:
        return None
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))
