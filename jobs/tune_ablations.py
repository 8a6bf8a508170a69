"""Run one ablation table of the papers: every variant, with several seeds, and the table with published figures.

    ray job submit --working-dir . -- python jobs/tune_ablations.py --table 1e --seeds 3 --config ek100 \\
        --shards s3://bucket/ek100 --storage s3://bucket/ablations --name windows \\
        --weights.spatial ViT-B-16/openai --weights.temporal /shared/videomae_ek100_b16.pth

The same thing small, on two CPU cores:

    cast-ray synthesize /tmp/clips --layout ek100 --train-clips 512
    python jobs/tune_ablations.py --table 1g --small --layout ek100 --data /tmp/clips/videos \\
        --annotations /tmp/clips/annotations --optim.epochs 6

Tables of the CAST paper: 1a to 1h, 5, 6, 7, 8; of CA2ST: ca2st-merge, ca2st-experts; of MSCA: msca, msca-patch. Tables
with other experts take their weights by name: --expert-weights clip=ViT-B-16/openai videomae=FILE mvd=FILE. The same
command continues what was interrupted.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import ClassVar

from rich.console import Console

from cast_ray.data.catalog.layouts import Layout, read_layout
from cast_ray.data.manifest import Manifest
from cast_ray.errors import run_as_command
from cast_ray.training.job import TrainingJob, parse_job
from cast_ray.tuning.pairs import pairs


@dataclass(frozen=True, kw_only=True)
class Job(TrainingJob):
    """Flags of this job beside those of every training job."""

    recipe: ClassVar[str] = "ek100"
    required: ClassVar[tuple[str, ...]] = ("data",)

    layout: Layout = "ek100"
    """Layout of the folders and annotation files."""
    table: str = "1e"
    """Name of the table."""
    seeds: int = 1
    """Runs of each variant; from two on the table has intervals."""
    expert_weights: tuple[str, ...] = ()
    """NAME=FILE_OR_NAME for each expert that the table compares."""
    max_concurrent: int | None = None
    """Runs at the same time; None: as many as the cluster has room for."""

    def clips(self, console: Console) -> Manifest:
        return read_layout(self.layout, str(self.data), self.annotations, split=None, on_skip=self.on_skip(console))


def main() -> None:
    """Parse, prepare, train all variants, show the table."""
    job = parse_job(Job, __doc__ or "", sys.argv[1:])
    from cast_ray.tuning.ablations import rows_for  # a table that does not exist is found before anything else

    weights = pairs("expert-weights", job.expert_weights)
    rows_for(job.table, job.run.model.name, weights)
    job.check_source()
    console = Console()

    # Imported late, so that --help, a wrong flag and a missing folder answer at once.
    from cast_ray.tuning.ablation_run import run_ablation

    run_ablation(
        job.run,
        job.shards or job.clips(console),
        job.table,
        seeds=job.seeds,
        weights=weights,
        max_concurrent=job.max_concurrent,
        console=console,
    )


if __name__ == "__main__":
    run_as_command(main)
