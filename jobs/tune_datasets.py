"""Train the same configuration on several datasets, and score it by the harmonic mean over datasets and tasks.

    ray job submit --working-dir . -- python jobs/tune_datasets.py --config ssv2 --storage s3://bucket/balance \\
        --datasets ssv2=s3://bucket/ssv2 k400=s3://bucket/k400 ek100=s3://bucket/ek100 --seeds 2 --name cast \\
        --weights.spatial ViT-B-16/openai --weights.temporal MCG-NJU/videomae-base

Datasets are prepared beforehand with jobs/prepare_data.py. The same thing small, on two CPU cores:

    for layout in ssv2 ek100; do
        cast-ray synthesize /tmp/$layout --layout $layout
        python jobs/prepare_data.py --layout $layout --data /tmp/$layout/videos \\
            --annotations /tmp/$layout/annotations --output /tmp/$layout/shards
    done
    python jobs/tune_datasets.py --small --datasets ssv2=/tmp/ssv2/shards ek100=/tmp/ek100/shards --optim.epochs 4

The same command continues what was interrupted.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import ClassVar

from rich.console import Console

from cast_ray.data.manifest import Manifest
from cast_ray.errors import UserError, run_as_command
from cast_ray.training.job import TrainingJob, parse_job
from cast_ray.tuning.pairs import pairs


@dataclass(frozen=True, kw_only=True)
class Job(TrainingJob):
    """Flags of this job beside those of every training job."""

    recipe: ClassVar[str] = "ssv2"

    datasets: tuple[str, ...] = ()
    """NAME=SHARDS for each dataset."""
    seeds: int = 1
    """Runs on each dataset; from two on the means have intervals."""
    views: bool = True
    """Evaluate the best checkpoints with all test views."""
    max_concurrent: int | None = None
    """Runs at the same time; None: as many as the cluster has room for."""

    def clips(self, console: Console) -> Manifest:
        raise NotImplementedError("the datasets are prepared beforehand")


def main() -> None:
    """Parse, train on every dataset, show the means."""
    job = parse_job(Job, __doc__ or "", sys.argv[1:])
    shards = pairs("datasets", job.datasets)
    if len(shards) < 2:
        raise UserError(f"--datasets names {len(shards)} datasets; give at least two as NAME=SHARDS")
    if job.data or job.annotations or job.shards:
        raise UserError("--data, --annotations and --shards are for one dataset; give --datasets NAME=SHARDS ...")
    job.run.check_experts()

    # Imported late, so that --help and a wrong flag answer at once.
    from cast_ray.tuning.datasets_run import run_datasets

    run_datasets(
        job.run, shards, seeds=job.seeds, views=job.views, max_concurrent=job.max_concurrent, console=Console()
    )


if __name__ == "__main__":
    run_as_command(main)
