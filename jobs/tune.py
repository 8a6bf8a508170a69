"""Search for better settings of a run, with Ray Tune: every trial is a distributed training run of its own.

    ray job submit --working-dir . -- python jobs/tune.py --config ssv2 --shards s3://bucket/ssv2 \\
        --storage s3://bucket/searches --name ssv2-optimiser --space optimiser --method.trials 32 --optim.epochs 12 \\
        --weights.spatial ViT-B-16/openai --weights.temporal /shared/videomae_ssv2_b16.pth

The same thing small, on two CPU cores:

    cast-ray synthesize /tmp/clips --layout ssv2 --train-clips 512
    python jobs/tune.py --small --data /tmp/clips/videos --annotations /tmp/clips/annotations --space optimiser \\
        --method.trials 8 --optim.epochs 6

--space names a ready search space, or a Python file of your own with SPACE = {"optim.base_lr": tune.loguniform(...)};
docs/tuning.md shows both. Results, the leaderboard and the best settings are written to STORAGE/NAME. The same command
continues a search that was interrupted: finished trials are kept, the others go on from their checkpoints.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from rich.console import Console

from cast_ray.data.catalog.layouts import Layout, read_layout
from cast_ray.data.manifest import Manifest
from cast_ray.errors import run_as_command
from cast_ray.training.job import TrainingJob, parse_job
from cast_ray.tuning.method import Method


@dataclass(frozen=True, kw_only=True)
class Job(TrainingJob):
    """Flags of this job beside those of every training job."""

    recipe: ClassVar[str] = "ssv2"
    required: ClassVar[tuple[str, ...]] = ("data",)

    layout: Layout = "ssv2"
    """Layout of the folders and annotation files."""
    space: str = "optimiser"
    """Settings to vary: optimiser, exchange, augmentation, or a Python file with SPACE."""
    views: bool = False
    """Evaluate each trial's best checkpoint with all test views at the end."""
    method: Method = field(default_factory=Method)

    def clips(self, console: Console) -> Manifest:
        return read_layout(self.layout, str(self.data), self.annotations, split=None, on_skip=self.on_skip(console))


def main() -> None:
    """Parse, prepare, search, write what came out."""
    import sys

    job = parse_job(Job, __doc__ or "", sys.argv[1:])
    job.check_source()
    job.run.check_experts()
    console = Console()

    # Imported late, so that --help, a wrong flag and a missing folder answer at once.
    from cast_ray.tuning.hunt import hunt
    from cast_ray.tuning.population import check_population
    from cast_ray.tuning.space import check_space, read_space

    space = read_space(job.space)
    check_space(space, job.run)
    if job.method.scheduler == "pbt":
        check_population(space, job.method, job.run)
    hunt(job.run, job.shards or job.clips(console), space, job.method, views=job.views, console=console)


if __name__ == "__main__":
    run_as_command(main)
