"""How decord decodes: its own reader over the file in memory, one thread, quiet."""

from __future__ import annotations

import functools
import io
import os
from typing import Any

from cast_ray.data.decoders.video import Source

__all__ = ["import_decord", "open_decord"]

SUBSTITUTED_FRAMES = 2
"""Frames per video that decord may replace by the one before, where a container lists more frames than it has."""


def open_decord(data: bytes, fps: float) -> Source:
    """Open a file of which no frame is hidden by the container.

    decord 0.6.0 counts hidden frames, returns wrong ones, and may spin for ever (dmlc/decord issues 373 and 375).
    """
    decord = import_decord()
    reader = decord.VideoReader(io.BytesIO(data), ctx=decord.cpu(0), num_threads=1, fault_tol=SUBSTITUTED_FRAMES)
    return Source(num_frames=len(reader), fps=fps, read=lambda indices: reader.get_batch(indices).asnumpy())


@functools.cache
def import_decord() -> Any:
    """The library, with its output off."""
    # Read once, when the library is loaded. The retries are polls, one or more per packet, so that the default of
    # 10240 fails on long intact videos; the warning would go to the terminal, `fault_tol` already covers the case.
    os.environ.setdefault("DECORD_EOF_RETRY_MAX", "1000000")
    os.environ.setdefault("DECORD_DUPLICATE_WARNING_THRESHOLD", "1.0")
    import decord

    decord.logging.set_level(decord.logging.QUIET)
    return decord
