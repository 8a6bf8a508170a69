"""What happens to a clip on a decode worker: fetch, decode, sample frames, crop to the model's size.

Shapes: B clips of a block, V views, T frames, S x S pixels, F label fields.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cast_ray.data import crops, sampling
from cast_ray.data.decode import UnreadableVideo, Video, frame_window, open_video
from cast_ray.data.order import PADDING
from cast_ray.data.randomness import rng_for
from cast_ray.data.shards import read_media

if TYPE_CHECKING:
    from cast_ray.config import RunConfig

__all__ = ["CentreView", "ClipLoader", "Sampling", "TestViews", "TrainView", "frame_sampling"]

Frames = NDArray[np.uint8]

_NEEDED = ("clip_id", "labels", "shard", "row", "start_s", "stop_s")
"""Index columns that loading itself needs."""


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
    return Sampling(
        kind=config.data.sampling,
        num_frames=config.model.num_frames,
        stride=config.data.stride,
        size=config.model.image_size,
    )


@dataclass(frozen=True, kw_only=True)
class TrainView:
    """One random view: random frames, one random resized crop for all of them. Frames [T, S, S, 3]."""

    sampling: Sampling
    seed: int
    crop_area: tuple[float, float]
    crop_ratio: tuple[float, float]

    @property
    def shape(self) -> tuple[int, ...]:
        """[T, S, S, 3]"""
        return self.sampling.shape

    def __call__(self, video: Video, first: int, count: int, clip_id: str, epoch: int) -> Frames:
        wanted = self.sampling
        rng = rng_for(self.seed, epoch, clip_id, "frames")
        if wanted.kind == "uniform":
            indices = sampling.uniform_train(count, wanted.num_frames, rng)
        else:
            indices = sampling.dense_train(count, wanted.num_frames, wanted.stride, rng)
        frames = video.frames(first + indices)
        rng = rng_for(self.seed, epoch, clip_id, "crop")
        height, width = frames.shape[1:3]
        box = crops.random_resized_crop_box(height, width, rng, self.crop_area, self.crop_ratio)
        return crops.crop_and_resize(frames, box, wanted.size)


@dataclass(frozen=True, kw_only=True)
class CentreView:
    """The one view of validation: central frames, central crop. Frames [T, S, S, 3]."""

    sampling: Sampling

    @property
    def shape(self) -> tuple[int, ...]:
        """[T, S, S, 3]"""
        return self.sampling.shape

    def __call__(self, video: Video, first: int, count: int, clip_id: str, epoch: int) -> Frames:
        wanted = self.sampling
        if wanted.kind == "uniform":
            indices = sampling.uniform_centre(count, wanted.num_frames)
        else:
            indices = sampling.dense_centre(count, wanted.num_frames, wanted.stride)
        frames = crops.resize_short_side(video.frames(first + indices), wanted.size)
        return crops.centre_crop(frames, wanted.size)


@dataclass(frozen=True, kw_only=True)
class TestViews:
    """All views of a test clip, decoded once: temporal views x crops along the longer side. Frames [V, T, S, S, 3]."""

    __test__ = False  # pytest: not a test class

    sampling: Sampling
    temporal_views: int
    spatial_crops: Literal[1, 3]

    @property
    def shape(self) -> tuple[int, ...]:
        """[V, T, S, S, 3]"""
        return (self.temporal_views * self.spatial_crops, *self.sampling.shape)

    def __call__(self, video: Video, first: int, count: int, clip_id: str, epoch: int) -> Frames:
        wanted = self.sampling
        if wanted.kind == "uniform":
            indices = sampling.uniform_test_views(count, wanted.num_frames, self.temporal_views)
        else:
            indices = sampling.dense_test_views(count, wanted.num_frames, wanted.stride, self.temporal_views)
        frames = video.frames(first + indices.reshape(-1))
        height, width = frames.shape[1:3]
        plan = sampling.three_crops(height, width, wanted.size)
        frames = crops.resize(frames, plan.resized)  # once for all crops
        which = range(3) if self.spatial_crops == 3 else [1]
        views = [crops.three_crop_view(frames, wanted.size, plan, crop) for crop in which]
        by_crop = np.stack(views).reshape(
            len(views), self.temporal_views, wanted.num_frames, wanted.size, wanted.size, 3
        )
        return by_crop.swapaxes(0, 1).reshape(-1, *by_crop.shape[2:])


@dataclass(frozen=True, kw_only=True)
class ClipLoader:
    """A block of index rows in, the same rows with frames out; the function that Ray Data maps.

    A clip that cannot be read keeps its place, with black frames, `valid` False and the reason, so that batches keep
    their size on every worker. It is for the consumer to leave it out of every sum and to count it.
    """

    root: str
    """URI of the sharded dataset."""
    view: TrainView | CentreView | TestViews
    columns: tuple[str, ...]
    """Columns of the index rows to hand on beside `clip_id` and `labels`."""

    def __call__(self, rows: pa.Table) -> dict[str, Any]:
        loaded = [self._load(row) for row in rows.select([*_NEEDED, *self.columns]).to_pylist()]
        views = [frames for frames, _ in loaded]
        blank = np.zeros(self.view.shape, np.uint8)
        return {
            "clip_id": np.array(rows["clip_id"].to_pylist(), dtype=object),
            "labels": np.array(rows["labels"].to_pylist(), dtype=np.int64),
            "frames": np.stack([blank if frames is None else frames for frames in views]),
            "valid": np.array([frames is not None for frames in views]),
            "reason": np.array([reason for _, reason in loaded], dtype=object),
            **{name: rows[name].to_numpy() for name in self.columns},
        }

    def _load(self, row: dict[str, Any]) -> tuple[Frames | None, str]:
        if row.get("clip") == PADDING:
            return None, ""
        (data,) = read_media(self.root, [row["shard"]], [row["row"]])
        try:
            video = open_video(data)
            first, count = frame_window(video, row["start_s"], row["stop_s"])
            return self.view(video, first, count, row["clip_id"], row.get("epoch", 0)), ""
        except UnreadableVideo as error:
            return None, error.reason
