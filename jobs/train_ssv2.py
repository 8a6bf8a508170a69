"""Train CAST on Something-Something-V2 and evaluate it.

On a cluster of 2 nodes x 8 GPUs, with shared storage:

    ray job submit --working-dir . -- python jobs/train_ssv2.py \\
        --data /shared/ssv2/videos --annotations /shared/ssv2/annotations --storage s3://bucket/runs \\
        --weights.spatial /shared/clip_vit_b16.safetensors --weights.temporal /shared/videomae_ssv2_b16.pth

The same thing small, on two CPU cores (any data in SSV2's layout, for example the embedded dataset):

    cast-ray synthesize /tmp/clips --layout ssv2
    python jobs/train_ssv2.py --small --data /tmp/clips/videos --annotations /tmp/clips/annotations

The same --name in the same --storage continues an interrupted run.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Annotated

import tyro
from rich.console import Console

from cast_ray.command_line import parse
from cast_ray.config import RunConfig
from cast_ray.data.catalog.ssv2 import read_ssv2
from cast_ray.errors import run_as_command
from cast_ray.recipes.small import small
from cast_ray.recipes.ssv2 import ssv2


@dataclass(frozen=True, kw_only=True)
class Job:
    """Flags of this job beside the recipe's."""

    data: str
    """Folder with the videos, <id>.webm or <id>.mp4."""
    annotations: str
    """Folder with labels.json, train.json and validation.json."""
    small: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Run the same thing small: a tiny network on two CPU cores."""
    worker_logs: bool = False
    """Print the logs of Ray's workers too."""
    run: Annotated[RunConfig, tyro.conf.arg(name="")]


def main() -> None:
    """Parse, prepare, train, evaluate, report."""
    recipe = small(ssv2()) if "--small" in sys.argv else ssv2()
    default = Job(data=tyro.MISSING, annotations=tyro.MISSING, run=recipe)
    job = parse(Job, default, description=__doc__ or "")
    job.run.check_experts()
    manifest = read_ssv2(job.data, job.annotations)

    # Imported late, so that --help, a wrong flag and a missing folder answer at once.
    from cast_ray.runs import run

    run(job.run, manifest, console=Console(), worker_logs=job.worker_logs)


if __name__ == "__main__":
    run_as_command(main)
