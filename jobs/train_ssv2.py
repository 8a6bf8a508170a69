"""Train CAST on Something-Something-V2 and evaluate it.

On a cluster of 2 nodes x 8 GPUs, with shared storage:

    ray job submit --working-dir . -- python jobs/train_ssv2.py \\
        --data /shared/ssv2/videos --annotations /shared/ssv2/annotations --storage s3://bucket/runs \\
        --weights.spatial ViT-B-16/openai --weights.temporal /shared/videomae_ssv2_b16.pth

The same thing small, on two CPU cores (any data in SSV2's layout, for example the embedded dataset):

    cast-ray synthesize /tmp/clips --layout ssv2
    python jobs/train_ssv2.py --small --data /tmp/clips/videos --annotations /tmp/clips/annotations

The same --name in the same --storage continues an interrupted run. docs/recipes.md says where every number is from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from cast_ray.data.catalog import read_ssv2
from cast_ray.data.catalog.entries import OnSkip
from cast_ray.data.manifest import Manifest
from cast_ray.errors import run_as_command
from cast_ray.training.job import OfficialJob, train_job


@dataclass(frozen=True, kw_only=True)
class Job(OfficialJob):
    """Flags of this job beside those of every training job."""

    recipe: ClassVar[str] = "ssv2"

    data: str | None = None
    """Folder with the videos, <id>.webm or <id>.mp4."""
    annotations: str | None = None
    """Folder with labels.json, train.json and validation.json."""

    @property
    def published(self) -> str:
        return "ssv2"

    def read(self, data: str, annotations: str, on_skip: OnSkip) -> Manifest:
        return read_ssv2(data, annotations, on_skip=on_skip)


if __name__ == "__main__":
    run_as_command(lambda: train_job(Job, __doc__))
