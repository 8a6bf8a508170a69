"""What a view of a clip is: which frames, which crop of them, and which piece of the sound.

Shapes: V views of a clip, T frames, S x S pixels. A view class fixes the leading axes of everything a clip has:
none where there is one view, [V] for the test views.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cast_ray.data import crops, sampling
from cast_ray.data.randomness import rng_for
from cast_ray.models.named import spec_of

if TYPE_CHECKING:
    from cast_ray.config import RunConfig

__all__ = ["CentreView", "Occurrence", "Sampling", "TestViews", "TrainView", "View", "frame_sampling"]

Frames = NDArray[np.uint8]
Integers = NDArray[np.int64]


class Occurrence(NamedTuple):
    """One time that a clip comes: all randomness of its view is keyed by this."""

    clip_id: str
    epoch: int = 0
    view: int = 0
    """Which of the clip's repetitions within the epoch."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Which frames of a clip a view has, and how large they are."""

    kind: Literal["uniform", "dense"]
    num_frames: int
    stride: int
    size: int
    """Height and width of a view, in pixels."""

    @property
    def shape(self) -> tuple[int, ...]:
        """[T, S, S, 3]"""
        return (self.num_frames, self.size, self.size, 3)


def frame_sampling(config: RunConfig) -> Sampling:
    """The sampling that a run's configuration describes."""
    video = spec_of(config.model).video
    return Sampling(
        kind=config.data.sampling, num_frames=video.num_frames, stride=config.data.stride, size=video.image_size
    )


@dataclass(frozen=True, kw_only=True)
class TrainView:
    """One random view: random frames, one random resized crop for all of them, a random piece of sound."""

    sampling: Sampling
    seed: int
    crop_area: tuple[float, float]
    crop_ratio: tuple[float, float]

    @property
    def views(self) -> tuple[int, ...]:
        """The leading axes: none."""
        return ()

    def frame_indices(self, count: int, which: Occurrence) -> Integers:
        """Of `count` frames, those of the view [T]."""
        wanted, rng = self.sampling, self._rng(which, "frames")
        if wanted.kind == "uniform":
            return sampling.uniform_train(count, wanted.num_frames, rng)
        return sampling.dense_train(count, wanted.num_frames, wanted.stride, rng)

    def crop(self, frames: Frames, which: Occurrence) -> Frames:
        """The view [T, S, S, 3] of its decoded frames [T, H, W, 3]."""
        rng = self._rng(which, "crop")
        height, width = frames.shape[1:3]
        box = crops.random_resized_crop_box(height, width, rng, self.crop_area, self.crop_ratio)
        return crops.crop_and_resize(frames, box, self.sampling.size)

    def sound_starts(self, count: int, wanted: int, which: Occurrence) -> Integers:
        """Of `count` samples, the first of the piece of `wanted` samples; no axes."""
        return np.array(sampling.sound_train(count, wanted, self._rng(which, "sound")))

    def _rng(self, which: Occurrence, purpose: str) -> np.random.Generator:
        return rng_for(self.seed, which.epoch, which.clip_id, purpose, which.view)


@dataclass(frozen=True, kw_only=True)
class CentreView:
    """The one view of validation: central frames, central crop, the middle of the sound; methods as `TrainView`."""

    sampling: Sampling

    @property
    def views(self) -> tuple[int, ...]:
        """The leading axes: none."""
        return ()

    def frame_indices(self, count: int, which: Occurrence) -> Integers:
        wanted = self.sampling
        if wanted.kind == "uniform":
            return sampling.uniform_centre(count, wanted.num_frames)
        return sampling.dense_centre(count, wanted.num_frames, wanted.stride)

    def crop(self, frames: Frames, which: Occurrence) -> Frames:
        frames = crops.resize_short_side(frames, self.sampling.size)
        return crops.centre_crop(frames, self.sampling.size)

    def sound_starts(self, count: int, wanted: int, which: Occurrence) -> Integers:
        return np.array(sampling.sound_centre(count, wanted))


@dataclass(frozen=True, kw_only=True)
class TestViews:
    """All views of a test clip, decoded once: temporal views x crops along the longer side.

    The crops of a temporal view come one after the other; methods as `TrainView`, with a first axis [V].
    """

    __test__ = False  # pytest: not a test class

    sampling: Sampling
    temporal_views: int
    spatial_crops: Literal[1, 3]

    @property
    def views(self) -> tuple[int, ...]:
        """The leading axes: [V]."""
        return (self.temporal_views * self.spatial_crops,)

    def frame_indices(self, count: int, which: Occurrence) -> Integers:
        """Of `count` frames, those of every temporal view [temporal views, T]."""
        wanted = self.sampling
        if wanted.kind == "uniform":
            return sampling.uniform_test_views(count, wanted.num_frames, self.temporal_views)
        return sampling.dense_test_views(count, wanted.num_frames, wanted.stride, self.temporal_views)

    def crop(self, frames: Frames, which: Occurrence) -> Frames:
        """The views [V, T, S, S, 3] of the temporal views' frames [temporal views * T, H, W, 3]."""
        wanted = self.sampling
        height, width = frames.shape[1:3]
        plan = sampling.three_crops(height, width, wanted.size)
        frames = crops.resize(frames, plan.resized)  # once for all crops
        places = (0, 1, 2) if self.spatial_crops == 3 else (1,)
        views = [crops.three_crop_view(frames, wanted.size, plan, place) for place in places]
        by_crop = np.stack(views).reshape(
            len(views), self.temporal_views, wanted.num_frames, wanted.size, wanted.size, 3
        )
        return by_crop.swapaxes(0, 1).reshape(-1, *by_crop.shape[2:])

    def sound_starts(self, count: int, wanted: int, which: Occurrence) -> Integers:
        return sampling.sound_test_views(count, wanted, *self.views)


View = TrainView | CentreView | TestViews
