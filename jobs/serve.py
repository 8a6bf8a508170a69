"""Serve a trained model over HTTP: upload a clip, get its classes as JSON; with a page to try it.

    python jobs/serve.py --checkpoint runs/ssv2
    curl --data-binary @clip.mp4 http://127.0.0.1:8000/predict

On a cluster, with four models on two GPUs, open to the network:

    ray job submit --working-dir . -- python jobs/serve.py --checkpoint s3://bucket/model.safetensors \\
        --replicas 4 --num-gpus 0.5 --host 0.0.0.0

There is no log-in: open it only to a network in which everybody may use it. Ctrl-C or SIGTERM ends it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Annotated

import tyro
from rich.console import Console

from cast_ray.checks import require, require_positive
from cast_ray.command_line import parse
from cast_ray.errors import run_as_command
from cast_ray.evaluation.trained import model_at
from cast_ray.inference.serving import Limits, application
from cast_ray.weights.moved import MovedWeights


@dataclass(frozen=True, kw_only=True)
class Job:
    """Flags of this job."""

    checkpoint: str
    """Folder or URI of a run (its best checkpoint is taken) or of a checkpoint, or a file of `cast-ray export`."""
    weights: MovedWeights = field(default_factory=MovedWeights)
    host: str = "127.0.0.1"
    """Address to listen on: 127.0.0.1 is this machine alone, 0.0.0.0 everybody who reaches it."""
    port: int = 8000
    """Port to listen on."""
    path: str = "/"
    """Path below which it answers; others may have / where Ray Serve runs for several applications."""
    replicas: int = 1
    """Copies of the model that predict in parallel."""
    num_cpus: float = 1.0
    """CPU cores for each copy."""
    num_gpus: float = 0.0
    """GPUs for each copy, or a part of one; 0 computes on the CPU."""
    limits: Annotated[Limits, tyro.conf.arg(name="")] = field(default_factory=Limits)

    def __post_init__(self) -> None:
        require(0 < self.port < 2**16, f"--port is {self.port}; give 1 to 65535")
        require(
            re.fullmatch(r"/|(/[\w-]+)+", self.path) is not None,
            f"--path is '{self.path}'; give / or one such as /clips, of letters, digits, _ and -",
        )
        require_positive("--replicas", self.replicas)
        require_positive("--num-cpus", self.num_cpus)
        require(self.num_gpus >= 0, f"--num-gpus is {self.num_gpus:g}; give 0 or more")


def main() -> None:
    """Check, start, wait."""
    job = parse(Job, Job(checkpoint=tyro.MISSING), description=__doc__ or "")
    model = model_at(job.checkpoint, job.weights)

    from cast_ray.inference.hosting import host

    app = application(model, replicas=job.replicas, num_cpus=job.num_cpus, num_gpus=job.num_gpus, limits=job.limits)
    host(app, address=job.host, port=job.port, path=job.path, console=Console())


if __name__ == "__main__":
    run_as_command(main)
