"""Train CA2ST on one split of UCF-101 and evaluate it; published results are the mean of three.

On a cluster of 2 nodes x 8 GPUs, with shared storage:

    ray job submit --working-dir . -- python jobs/train_ucf101.py \\
        --data /shared/ucf101/videos --annotations /shared/ucf101/annotations --storage s3://bucket/runs \\
        --split 1 --name ucf101-split1 \\
        --weights.spatial ViT-B-16/openai --weights.temporal /shared/videomae_k400_b16.pth \\
        --weights.audio MIT/ast-finetuned-audioset-10-10-0.4593

Clips without a sound track are judged by what is seen. Without sound altogether:
--model.name cast_base_patch16_224

The same thing small, on two CPU cores (any part of the dataset):

    python jobs/train_ucf101.py --small --leave-out --data ucf101/videos --annotations ucf101/annotations

The same --name in the same --storage continues an interrupted run. docs/recipes.md says where every number is from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from cast_ray.data.catalog import read_ucf101
from cast_ray.data.catalog.entries import OnSkip
from cast_ray.data.manifest import Manifest
from cast_ray.errors import run_as_command
from cast_ray.training.job import OfficialJob, train_job


@dataclass(frozen=True, kw_only=True)
class Job(OfficialJob):
    """Flags of this job beside those of every training job."""

    recipe: ClassVar[str] = "ucf101"

    data: str | None = None
    """Folder with the videos, <class>/<clip>.avi."""
    annotations: str | None = None
    """Folder with classInd.txt, trainlist0<split>.txt and testlist0<split>.txt."""
    split: Literal[1, 2, 3] = 1
    """Which of the three official divisions; a prepared dataset (--shards) has the one it was made of."""

    @property
    def published(self) -> str:
        return f"ucf101-{self.split}"

    def read(self, data: str, annotations: str, on_skip: OnSkip) -> Manifest:
        return read_ucf101(data, annotations, split=self.split, on_skip=on_skip)


if __name__ == "__main__":
    run_as_command(lambda: train_job(Job, __doc__))
