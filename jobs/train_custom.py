"""Train CAST on your own clips and evaluate it. The classes are those of the data.

On a cluster of 2 nodes x 8 GPUs, with shared storage; one folder per class, videos/train/fall/0001.mp4 and so on:

    ray job submit --working-dir . -- python jobs/train_custom.py \\
        --data /shared/clips/videos --storage s3://bucket/runs \\
        --weights.spatial ViT-B-16/openai --weights.temporal MCG-NJU/videomae-base

Several labels per clip, or clips inside longer files: add --annotations, a folder with the tables train.csv and
validation.csv (docs/datasets.md). Fewer GPUs: --scale.num-workers 2. From a network that is trained already:
--weights.network cast_ssv2.pth --weights.new-head, instead of the experts. With sound:
--model.name ca2st_base_patch16_224 --weights.audio MIT/ast-finetuned-audioset-10-10-0.4593

The same thing small, on two CPU cores (any such data, for example the embedded dataset):

    cast-ray synthesize /tmp/clips --layout table
    python jobs/train_custom.py --small --data /tmp/clips/videos --annotations /tmp/clips/annotations

The same --name in the same --storage continues an interrupted run. docs/recipes.md says where every number is from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rich.console import Console

from cast_ray.data.catalog import read_folders, read_table
from cast_ray.data.manifest import Manifest
from cast_ray.errors import run_as_command
from cast_ray.training.job import TrainingJob, train_job


@dataclass(frozen=True, kw_only=True)
class Job(TrainingJob):
    """Flags of this job beside those of every training job."""

    recipe: ClassVar[str] = "custom"
    required: ClassVar[tuple[str, ...]] = ("data",)

    data: str | None = None
    """Folder with the videos; without --annotations it has train/<class> and validation/<class>."""
    annotations: str | None = None
    """Folder with train.csv and validation.csv: column clip, optionally start_s and stop_s, and one per label."""

    def clips(self, console: Console) -> Manifest:
        data, on_skip = str(self.data), self.on_skip(console)
        if self.annotations is None:
            return read_folders(data, on_skip=on_skip)
        return read_table(data, self.annotations, on_skip=on_skip)


if __name__ == "__main__":
    run_as_command(lambda: train_job(Job, __doc__))
