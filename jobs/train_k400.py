"""Train CAST, or MSCA, on Kinetics-400 and evaluate it.

On a cluster of 2 nodes x 8 GPUs, with shared storage:

    ray job submit --working-dir . -- python jobs/train_k400.py \\
        --data /shared/k400/videos --annotations /shared/k400/annotations --storage s3://bucket/runs \\
        --leave-out \\
        --weights.spatial ViT-B-16/openai --weights.temporal /shared/videomae_k400_b16.pth

MSCA by its own recipe, on 2 GPUs: --config msca --weights.spatial /shared/ViT-B_16_Img21.npz

The same thing small, on two CPU cores (any part of the dataset):

    python jobs/train_k400.py --small --leave-out --data k400/videos --annotations k400/annotations

The same --name in the same --storage continues an interrupted run. docs/recipes.md says where every number is from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from cast_ray.data.catalog import read_kinetics
from cast_ray.data.catalog.entries import OnSkip
from cast_ray.data.manifest import Manifest
from cast_ray.errors import run_as_command
from cast_ray.training.job import OfficialJob, train_job


@dataclass(frozen=True, kw_only=True)
class Job(OfficialJob):
    """Flags of this job beside those of every training job."""

    recipe: ClassVar[str] = "k400"

    data: str | None = None
    """Folder with the videos, <youtube_id>_<start>_<end>.mp4 or <youtube_id>.mp4; see docs/datasets.md."""
    annotations: str | None = None
    """Folder with train.csv and val.csv."""

    @property
    def published(self) -> str:
        return "kinetics400"

    def read(self, data: str, annotations: str, on_skip: OnSkip) -> Manifest:
        return read_kinetics(data, annotations, on_skip=on_skip)


if __name__ == "__main__":
    run_as_command(lambda: train_job(Job, __doc__))
