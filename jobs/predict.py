"""Predict any number of videos without labels, as a folder of Parquet files.

    python jobs/predict.py runs/ssv2 --input s3://bucket/videos --output s3://bucket/found
    python jobs/predict.py model.safetensors --input '/data/**/*.mp4' --output found --probabilities

The model is a checkpoint, a run, whose best checkpoint is taken, or a file of `cast-ray export`. The input is a folder,
a pattern, a video file, or a .csv or .parquet table with the column `path` and perhaps `start_s`, `stop_s` and
`clip_id`; nothing has to be prepared. A dataset that jobs/prepare_data.py wrote is given with --shards. The same
command again goes on where a killed one was, with the videos that were listed then; files that cannot be read stop
nothing and are listed with the reason. Formats: docs/evaluation.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro
from rich.console import Console

from cast_ray.checks import require, require_positive
from cast_ray.command_line import parse
from cast_ray.data.catalog.source import say
from cast_ray.errors import run_as_command
from cast_ray.evaluation.flags import ModelFlags

EXAMPLES = 5


@dataclass(frozen=True, kw_only=True)
class Job(ModelFlags):
    """Flags of this job."""

    checkpoint: Annotated[str, tyro.conf.Positional]
    """Path or URI of the folder of a checkpoint or of a run, or of an exported file."""
    input: str | None = None
    """Folder, pattern, video file, or table of paths; every node must reach the files."""
    shards: str | None = None
    """Path or URI of a prepared dataset instead."""
    output: str
    """Folder or URI for the predictions."""
    top: int = 5
    """Best classes that are kept of each label field."""
    probabilities: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Keep the probabilities of all classes instead."""

    def check(self) -> None:
        """Raise `UserError` for flags that contradict each other."""
        require((self.input is None) != (self.shards is None), "give either --input or --shards, and not both")
        require_positive("top", self.top)


def main() -> None:
    """Load, list, predict, tell."""
    job = parse(Job, Job(checkpoint=tyro.MISSING, output=tyro.MISSING), description=__doc__ or "")
    job.check()
    console = Console()

    from cast_ray.cluster import connect
    from cast_ray.data.shards import open_complete
    from cast_ray.data.storage import absolute
    from cast_ray.evaluation.batch import batch_of_files, batch_of_shards, predict_batch
    from cast_ray.evaluation.distributed import check_replicas
    from cast_ray.evaluation.kept_listing import kept_listing
    from cast_ray.evaluation.part_files import UNREADABLE
    from cast_ray.evaluation.trained import model_at

    model, output = job.applied(model_at(job.checkpoint, job.weights)), absolute(job.output)
    say(console, "checkpoint", model.place)
    if job.shards is not None:
        batch = batch_of_shards(open_complete(job.shards), model)
    else:
        listing = kept_listing(str(job.input), output)
        for reason, count in listing.left_out.items():
            say(console, "left out", f"{count:,} {reason}")
        batch = batch_of_files(listing, model)
    say(console, "data", f"{batch.clips.num_rows:,} clips")
    check_replicas(model, may_grow=not connect(), console=console)
    outcome = predict_batch(
        model,
        batch,
        output=output,
        console=console,
        top=job.top,
        probabilities=job.probabilities,
        clips_per_part=job.clips_per_part,
    )
    for clip_id, reason in outcome.unreadable[:EXAMPLES]:
        say(console, "unreadable", f"{clip_id}: {reason}")
    if outcome.unreadable:
        say(console, "unreadable", f"{len(outcome.unreadable):,} clips, all of them in {output}/{UNREADABLE}")
    say(console, "predictions", f"{output} ({outcome.rate})")


if __name__ == "__main__":
    run_as_command(main)
