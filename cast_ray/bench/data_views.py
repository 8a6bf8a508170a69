"""What the multi-view test gains from decoding a clip once for all its views."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cast_ray.bench.data_paths import SAMPLING, DataJob
from cast_ray.data import crops
from cast_ray.data.loader import ClipLoader
from cast_ray.data.manifest import TRAIN
from cast_ray.data.sampling import three_crops
from cast_ray.data.shards import open_complete
from cast_ray.data.views import Occurrence, Sampling, TestViews

__all__ = ["measure_views"]

CROPS = 3
CLIPS = 2
"""In a block."""


@dataclass(frozen=True, kw_only=True)
class _OneView:
    """One of the views of `TestViews`, made by itself, as a loader does that takes (clip, view) for its unit."""

    views_of: TestViews
    temporal: int
    place: int

    @property
    def views(self) -> tuple[int, ...]:
        return ()

    @property
    def sampling(self) -> Sampling:
        return self.views_of.sampling

    def frame_indices(self, count: int, which: Occurrence) -> NDArray[np.int64]:
        return self.views_of.frame_indices(count, which)[self.temporal]

    def crop(self, frames: NDArray[np.uint8], which: Occurrence) -> NDArray[np.uint8]:
        plan = three_crops(frames.shape[1], frames.shape[2], SAMPLING.size)
        return crops.three_crop_view(frames, SAMPLING.size, plan, self.place)


def measure_views(job: DataJob) -> dict[str, Any]:
    """Processor seconds per clip for all views at once and for view after view, of one process; by temporal views."""
    import torch

    torch.set_num_threads(1)
    measured: dict[str, Any] = {}
    for stored, root in job.datasets.items():
        rows = open_complete(root).split(TRAIN)
        for temporal in (2, 5):
            once, each = _seconds(job, root, rows, temporal)
            measured[f"{stored} {temporal}x{CROPS}"] = {
                "processor_seconds_per_clip": {"once": once, "every_view": each},
                "ratio": each / once,
            }
    return {"views": measured}


def _seconds(job: DataJob, root: str, rows: pa.Table, temporal: int) -> tuple[float, float]:
    """The best of what was tried within the job's time, both ways taking turns."""
    views = TestViews(sampling=SAMPLING, temporal_views=temporal, spatial_crops=3)
    single = [_OneView(views_of=views, temporal=at, place=place) for at in range(temporal) for place in range(CROPS)]
    stored = open_complete(root).format

    def load(view: Any, block: pa.Table) -> NDArray[np.uint8]:
        return ClipLoader(root=root, stored=stored, view=view, columns=(), decoder=job.decoder)(block)["frames"]

    best = [float("inf"), float("inf")]
    until = time.monotonic() + job.seconds / 4
    first = 0
    while first < 2 * CLIPS or time.monotonic() < until:  # the first one is slower than all: imports
        block = rows.slice(first % rows.num_rows, CLIPS)
        begun = time.process_time()
        together = load(views, block)
        middle = time.process_time()
        apart = np.stack([load(view, block) for view in single], axis=1)
        took = middle - begun, time.process_time() - middle
        if not np.array_equal(together, apart):
            raise RuntimeError("the two ways gave different frames; this is a defect")
        best = [min(old, new / block.num_rows) for old, new in zip(best, took, strict=True)]
        first += CLIPS
    return best[0], best[1]
