"""Train CA2ST on VGG-Sound and evaluate it.

On a cluster of 2 nodes x 8 GPUs, with shared storage:

    ray job submit --working-dir . -- python jobs/train_vggsound.py \\
        --data /shared/vggsound/videos --annotations /shared/vggsound/annotations --storage s3://bucket/runs \\
        --leave-out \\
        --weights.spatial ViT-B-16/openai --weights.temporal /shared/videomae_b16.pth \\
        --weights.audio MIT/ast-finetuned-audioset-10-10-0.4593

Without the temporal expert: --model.name cava_base_patch16_224

The same thing small, on two CPU cores (any part of the dataset):

    python jobs/train_vggsound.py --small --leave-out --data vggsound/videos --annotations vggsound/annotations

The same --name in the same --storage continues an interrupted run. docs/recipes.md says where every number is from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from cast_ray.data.catalog import read_vggsound
from cast_ray.data.catalog.entries import OnSkip
from cast_ray.data.manifest import Manifest
from cast_ray.errors import run_as_command
from cast_ray.training.job import OfficialJob, train_job


@dataclass(frozen=True, kw_only=True)
class Job(OfficialJob):
    """Flags of this job beside those of every training job."""

    recipe: ClassVar[str] = "vggsound"

    data: str | None = None
    """Folder with the videos, <youtube_id>_<start>.mp4, seconds in six digits."""
    annotations: str | None = None
    """Folder with vggsound.csv."""

    @property
    def published(self) -> str:
        return "vggsound"

    def read(self, data: str, annotations: str, on_skip: OnSkip) -> Manifest:
        return read_vggsound(data, annotations, on_skip=on_skip)


if __name__ == "__main__":
    run_as_command(lambda: train_job(Job, __doc__))
