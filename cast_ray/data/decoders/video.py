"""What an opened video is: a number of frames, and a way to get any of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cast_ray.data.decoders.guard import guarded

__all__ = ["Frames", "Source", "Video"]

Frames = NDArray[np.uint8]
"""RGB frames, [T, H, W, 3], upright (a rotation tag is applied)."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """What a decoding library makes of a file."""

    num_frames: int
    """Frames that a player would show."""
    fps: float
    """Average frames per second, 0.0 where the container does not say."""
    read: Callable[[list[int]], Frames]
    """The frames at rising indices without repetition; raises whatever the library raises."""


class Video:
    """An opened video. Not safe for use by several threads.

    Attributes:
        num_frames: frames that a player would show.
        fps: average frames per second, 0.0 where the container does not say.
    """

    def __init__(self, source: Source, *, time_limit_s: float) -> None:
        self.num_frames = source.num_frames
        self.fps = source.fps
        self._read = source.read
        self._time_limit_s = time_limit_s

    def frames(self, indices: Sequence[int] | NDArray[np.int64]) -> Frames:
        """The frames at `indices` [T], in that order; an index may be repeated and is then decoded once.

        Raises:
            UnreadableVideo: the frames cannot be decoded, or not within the time limit.
            IndexError: an index is outside the video.
        """
        unique, inverse = np.unique(np.asarray(indices, dtype=np.int64), return_inverse=True)
        if unique.size == 0 or unique[0] < 0 or unique[-1] >= self.num_frames:
            raise IndexError(f"frame indices {unique.tolist()} of a video with {self.num_frames} frames")
        decoded = guarded(lambda: self._read(unique.tolist()), self._time_limit_s)
        in_order = np.array_equal(inverse, np.arange(len(decoded)))
        return decoded if in_order else decoded[inverse]
