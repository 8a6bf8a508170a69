"""Train CA2ST on EPIC-SOUNDS and evaluate it.

On a cluster of 2 nodes x 8 GPUs, with shared storage:

    ray job submit --working-dir . -- python jobs/train_epic_sounds.py \\
        --data /shared/epic_sounds/videos --annotations /shared/epic_sounds/annotations --storage s3://bucket/runs \\
        --weights.spatial ViT-B-16/openai --weights.temporal /shared/videomae_ek100_b16.pth \\
        --weights.audio MIT/ast-finetuned-audioset-10-10-0.4593

Without the temporal expert: --model.name cava_base_patch16_224_clock

The same thing small, on two CPU cores (any part of the dataset):

    python jobs/train_epic_sounds.py --small --leave-out --data epic_sounds/videos --annotations epic_sounds/annotations

The same --name in the same --storage continues an interrupted run. docs/recipes.md says where every number is from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from cast_ray.data.catalog import read_epic_sounds
from cast_ray.data.catalog.entries import OnSkip
from cast_ray.data.manifest import Manifest
from cast_ray.errors import run_as_command
from cast_ray.training.job import OfficialJob, train_job


@dataclass(frozen=True, kw_only=True)
class Job(OfficialJob):
    """Flags of this job beside those of every training job."""

    recipe: ClassVar[str] = "epic_sounds"

    data: str | None = None
    """Folder with the whole recordings of EPIC-KITCHENS-100, P01/P01_01.MP4."""
    annotations: str | None = None
    """Folder with EPIC_Sounds_train.csv and EPIC_Sounds_validation.csv."""

    @property
    def published(self) -> str:
        return "epic_sounds"

    def read(self, data: str, annotations: str, on_skip: OnSkip) -> Manifest:
        return read_epic_sounds(data, annotations, on_skip=on_skip)


if __name__ == "__main__":
    run_as_command(lambda: train_job(Job, __doc__))
