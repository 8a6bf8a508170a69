"""Which frames, crops and piece of sound of a clip enter a view: pure functions of sizes and a random generator.

Letters: F frames of the video, T frames of a view (`num_frames`), V views (temporal ones for frames, all for sound).
All frame indices are int64 in [0, F) and never decrease within a view; a video shorter than the view repeats frames.

Sources: sampling and test views of CAST (arXiv 2311.18825, appendix), which follow VideoMAE;
pieces of sound as in CA2ST's published code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "CropPlan",
    "dense_centre",
    "dense_test_views",
    "dense_train",
    "short_side_size",
    "sound_centre",
    "sound_test_views",
    "sound_train",
    "three_crops",
    "uniform_centre",
    "uniform_test_views",
    "uniform_train",
]

Indices = NDArray[np.int64]
"""Frame indices, [T] for one view or [V, T] for several."""


@dataclass(frozen=True, kw_only=True)
class CropPlan:
    """Where the three square test crops lie, after the short side is resized to the crop size."""

    resized: tuple[int, int]
    """Frame height and width in pixels after resizing."""
    offsets: tuple[int, int, int]
    """First row (axis "height") or column (axis "width") of the crops: start, middle, end."""
    axis: Literal["height", "width"]
    """The side along which the crops move: the longer one; "height" for a square."""


def uniform_train(video_frames: int, num_frames: int, rng: np.random.Generator) -> Indices:
    """One random frame from each of T equal segments of the whole video; shape [T]."""
    _check(video_frames=video_frames, num_frames=num_frames)
    position = (np.arange(num_frames) + rng.random(num_frames)) * video_frames / num_frames
    # random() < 1, but the sum and the product may round up to F.
    return np.minimum(position.astype(np.int64), video_frames - 1)


def dense_train(video_frames: int, num_frames: int, stride: int, rng: np.random.Generator) -> Indices:
    """T frames at `stride` from a window of T * stride frames that starts anywhere; shape [T].

    A video shorter than the window is read from its start, and its last frame is repeated.
    """
    _check(video_frames=video_frames, num_frames=num_frames, stride=stride)
    start = int(rng.integers(max(video_frames - num_frames * stride, 0) + 1))
    return _window(start, video_frames, num_frames, stride)


def uniform_centre(video_frames: int, num_frames: int) -> Indices:
    """The middle frame of each of T equal segments: the single validation view of uniform sampling; shape [T]."""
    _check(video_frames=video_frames, num_frames=num_frames)
    return _segment_frames(video_frames, num_frames, numerator=1, denominator=2)


def dense_centre(video_frames: int, num_frames: int, stride: int) -> Indices:
    """T frames at `stride` from the middle window: the single validation view of dense sampling; shape [T]."""
    _check(video_frames=video_frames, num_frames=num_frames, stride=stride)
    return _window(max(video_frames - num_frames * stride, 0) // 2, video_frames, num_frames, stride)


def uniform_test_views(video_frames: int, num_frames: int, num_views: int) -> Indices:
    """Test views of uniform sampling; shape [V, T].

    View v takes from each of T equal segments the frame at the fraction v / V of its length: with the paper's two
    views, the segments' first frames and their middle frames.
    """
    _check(video_frames=video_frames, num_frames=num_frames, num_views=num_views)
    views = [_segment_frames(video_frames, num_frames, numerator=v, denominator=num_views) for v in range(num_views)]
    return np.stack(views)


def dense_test_views(video_frames: int, num_frames: int, stride: int, num_views: int) -> Indices:
    """Test views of dense sampling; shape [V, T].

    Every `stride`-th frame of the video forms a list, padded with its last frame to at least T; the views are V
    windows of T list entries, evenly spaced from the first to the last possible one. One view is the middle window.
    """
    _check(video_frames=video_frames, num_frames=num_frames, stride=stride, num_views=num_views)
    listed = np.arange(0, video_frames, stride, dtype=np.int64)
    spare = max(len(listed) - num_frames, 0)
    starts = [int(v * (spare / (num_views - 1))) for v in range(num_views)] if num_views > 1 else [spare // 2]
    positions = np.asarray(starts)[:, None] + np.arange(num_frames)
    return listed[np.minimum(positions, len(listed) - 1)]


def short_side_size(height: int, width: int, size: int) -> tuple[int, int]:
    """Height and width in pixels when the short side becomes `size`; the long side is rounded down."""
    _check(height=height, width=width, size=size)
    if height <= width:
        return size, size * width // height
    return size * height // width, size


def three_crops(height: int, width: int, size: int) -> CropPlan:
    """The three `size` x `size` crops along the longer side of a height x width frame."""
    resized = short_side_size(height, width, size)
    spare = max(resized) - size
    return CropPlan(
        resized=resized, offsets=(0, spare // 2, spare), axis="height" if resized[0] >= resized[1] else "width"
    )


def sound_train(num_samples: int, wanted: int, rng: np.random.Generator) -> int:
    """First sample of a piece of `wanted` samples that starts anywhere; 0 if there are not that many samples."""
    _check(wanted=wanted)
    return int(rng.integers(max(num_samples - wanted, 0) + 1))


def sound_centre(num_samples: int, wanted: int) -> int:
    """First sample of the middle piece of `wanted` samples: the single validation view."""
    _check(wanted=wanted)
    return max(num_samples - wanted, 0) // 2


def sound_test_views(num_samples: int, wanted: int, num_views: int) -> Indices:
    """First samples of the pieces of `wanted` samples that the test views hear; shape [V].

    View v starts at the fraction 1/4 + v / 2V of what the sound is longer than a piece: with the published 2 x 3 views,
    at (3 chunk + crop + 3) / 12. Views along time and crops are counted together, so that crops of the same frames
    hear different pieces. One view is the middle piece.
    """
    _check(wanted=wanted, num_views=num_views)
    if num_views == 1:
        return np.array([sound_centre(num_samples, wanted)], dtype=np.int64)
    return max(num_samples - wanted, 0) * (num_views + 2 * np.arange(num_views, dtype=np.int64)) // (4 * num_views)


def _segment_frames(video_frames: int, num_frames: int, *, numerator: int, denominator: int) -> Indices:
    # Floating point on purpose, here and in `dense_test_views`: the published views round down a float product, which
    # for some lengths is one frame below the exact quotient.
    length = video_frames / num_frames
    return (length * np.arange(num_frames) + length * numerator / denominator).astype(np.int64)


def _window(start: int, video_frames: int, num_frames: int, stride: int) -> Indices:
    indices = start + np.arange(num_frames, dtype=np.int64) * stride
    return np.minimum(indices, video_frames - 1)


def _check(**sizes: int) -> None:
    for name, value in sizes.items():
        if value < 1:
            raise ValueError(f"{name} is {value}, must be at least 1")
