"""Train CAST on EPIC-KITCHENS-100 and evaluate it: verbs, nouns and actions.

On a cluster of 2 nodes x 8 GPUs, with shared storage:

    ray job submit --working-dir . -- python jobs/train_ek100.py \\
        --data /shared/ek100/videos --annotations /shared/ek100/annotations --storage s3://bucket/runs \\
        --weights.spatial ViT-B-16/openai --weights.temporal /shared/videomae_ek100_b16.pth

CA2ST with sound: --config ek100_sound --weights.audio MIT/ast-finetuned-audioset-10-10-0.4593

The same thing small, on two CPU cores (any data in this layout, for example the embedded dataset):

    cast-ray synthesize /tmp/clips --layout ek100
    python jobs/train_ek100.py --small --data /tmp/clips/videos --annotations /tmp/clips/annotations

The same --name in the same --storage continues an interrupted run. docs/recipes.md says where every number is from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from cast_ray.data.catalog import read_ek100
from cast_ray.data.catalog.entries import OnSkip
from cast_ray.data.manifest import Manifest
from cast_ray.errors import run_as_command
from cast_ray.training.job import OfficialJob, train_job


@dataclass(frozen=True, kw_only=True)
class Job(OfficialJob):
    """Flags of this job beside those of every training job."""

    recipe: ClassVar[str] = "ek100"

    data: str | None = None
    """Folder with one video per segment, <narration_id>.mp4, or with the whole recordings, P01/P01_01.MP4."""
    annotations: str | None = None
    """Folder with EPIC_100_{train,validation,verb_classes,noun_classes}.csv."""

    @property
    def published(self) -> str:
        return "ek100"

    def read(self, data: str, annotations: str, on_skip: OnSkip) -> Manifest:
        return read_ek100(data, annotations, on_skip=on_skip)


if __name__ == "__main__":
    run_as_command(lambda: train_job(Job, __doc__))
