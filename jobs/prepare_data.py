"""Turn the videos of a dataset into Parquet shards on local disk, S3 or GCS, over all cores of the cluster.

    ray job submit --working-dir . -- python jobs/prepare_data.py --layout ssv2 \\
        --data /shared/ssv2/videos --annotations /shared/ssv2/annotations --output s3://bucket/ssv2 \\
        --media.video short-gop --media.sound none

On this machine, one folder per class, JPEG frames, and what cannot be used left out:

    python jobs/prepare_data.py --layout folders --data videos --output shards --media.video jpeg --media.sound 16khz

The same command again continues an interrupted preparation: finished shards are kept. Layouts are described in
docs/datasets.md, formats in docs/preparation.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

import tyro
from rich.console import Console

from cast_ray.command_line import parse
from cast_ray.data.catalog.layouts import Layout, count_remark, read_layout
from cast_ray.data.catalog.source import on_skip, say
from cast_ray.data.catalog.splits import split_remarks
from cast_ray.data.media import MediaFormat
from cast_ray.errors import UserError, run_as_command


@dataclass(frozen=True, kw_only=True)
class Job:
    """Flags of this job."""

    layout: Layout
    """Layout of the folders and annotation files."""
    data: str
    """Folder with the videos; every node must reach it."""
    annotations: str | None = None
    """Folder with the annotation files."""
    split: Literal[1, 2, 3] | None = None
    """UCF-101: which of the official splits; None is the first."""
    leave_out: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Go on without the clips that cannot be used, such as those without a video file, and say which they are."""
    output: str
    """Folder or URI (s3://, gs://) for the shards; every node must reach it."""
    media: MediaFormat = field(default_factory=MediaFormat)
    clips_per_shard: int = 256
    """Clips in one file, which one task writes."""
    cpus_per_task: float = 1.0
    """CPU cores that Ray sets aside for one task."""
    worker_logs: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print the logs of Ray's workers too."""

    def __post_init__(self) -> None:
        for name in ("clips_per_shard", "cpus_per_task"):
            if not getattr(self, name) > 0:
                raise UserError(f"{name.replace('_', '-')} is {getattr(self, name)}; give a number above 0")


def main() -> None:
    """Read the annotations, prepare, tell."""
    job = parse(Job, Job(layout=tyro.MISSING, data=tyro.MISSING, output=tyro.MISSING), description=__doc__ or "")
    console = Console()
    leaving_out = on_skip(console, leave_out=job.leave_out)
    manifest = read_layout(job.layout, job.data, job.annotations, split=job.split, on_skip=leaving_out)
    for remark in (count_remark(job.layout, manifest, split=job.split), *split_remarks(manifest)):
        if remark is not None:
            say(console, "note", remark)

    # Imported late, so that --help, a wrong flag and a missing folder answer at once.
    from cast_ray.cluster import connect
    from cast_ray.data.outcome import show_outcome
    from cast_ray.data.prepare import check_cores, prepare
    from cast_ray.data.storage import absolute

    output = absolute(job.output)
    check_cores(job.cpus_per_task, may_grow=not connect(worker_logs=job.worker_logs), console=console)
    say(console, "data", f"{len(manifest.clips):,} clips, to {output}")
    done = prepare(
        manifest,
        output,
        job.media,
        console,
        clips_per_shard=job.clips_per_shard,
        cpus_per_task=job.cpus_per_task,
    )
    show_outcome(done, job.layout, console)


if __name__ == "__main__":
    run_as_command(main)
