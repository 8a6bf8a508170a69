"""Train five models on the embedded dataset and show what each of them can know: two CPU cores, about 45 minutes.

    make demo-all
    python jobs/demo_all.py --models spatial_tiny cast_tiny --train-clips 512 --optim.epochs 4

Every clip has a verb (how the object moves), a noun (its shape) and a sound that has nothing to do with either. The
spatial expert alone sees single frames, the temporal expert alone sees motion, CAST lets them talk; CAVA and CA2ST also
listen. Everything is written below --storage; the same command again continues where it stopped.
"""

from __future__ import annotations

import dataclasses
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from cast_ray.command_line import parse
from cast_ray.config import RunConfig
from cast_ray.errors import UserError, run_as_command
from cast_ray.recipes.toy import toy


@dataclass(frozen=True, kw_only=True)
class Job:
    """Flags of the comparison beside the recipe's."""

    models: tuple[str, ...] = ("spatial_tiny", "temporal_tiny", "cast_tiny", "cava_tiny", "ca2st_tiny")
    """Names of the models to compare; `cast-ray models '*tiny*'` lists them."""
    train_clips: int = 4096
    """Clips to train on."""
    validation_clips: int = 384
    """Held-out clips."""
    silent_share: float = 0.0
    """Share of the clips that have no sound track."""
    run: Annotated[RunConfig, tyro.conf.arg(name="")]


def main() -> None:
    """Render, train and evaluate model after model, compare."""
    started = time.monotonic()
    job = parse(Job, Job(run=toy()), description=__doc__ or "")
    if "://" in job.run.storage:
        raise UserError(f"storage is '{job.run.storage}'; the demonstration needs a local folder for its clips")
    configs = [model_config(job, model) for model in job.models]

    # Imported late, so that --help and a wrong flag answer at once.
    from cast_ray.data.catalog.table import read_table
    from cast_ray.data.synthetic import synthesize
    from cast_ray.evaluation.comparison import comparison
    from cast_ray.runs import named_by_settings, run

    console = Console()
    storage = Path(job.run.storage).expanduser()
    dataset = f"{job.train_clips}-{job.validation_clips}-{job.silent_share:g}"
    clips = synthesize(
        storage / f"sounding-clips-{dataset}",
        layout="table",
        train_clips=job.train_clips,
        validation_clips=job.validation_clips,
        seed=0,
        silent_share=job.silent_share,
        console=console,
    )
    manifest = read_table(str(clips.videos), str(clips.annotations))
    results: dict[str, dict[str, float]] = {}
    for config in configs:
        console.rule(config.model.name)
        finished = run(named_by_settings(config, f"{config.model.name}-{dataset}"), manifest, console=console)
        results[config.model.name] = finished.metrics.summary()
    console.rule("what each model knows")
    console.print(comparison(results, manifest.label_map))
    path = storage / "comparison.json"
    path.write_text(json.dumps(results, indent=2))
    console.print(f"figures: {path}\nall of it took {(time.monotonic() - started) / 60:.1f} minutes", soft_wrap=True)


def model_config(job: Job, model: str) -> RunConfig:
    """The settings of one model's run; an unknown name is a `UserError`."""
    config = dataclasses.replace(
        job.run,
        model=dataclasses.replace(job.run.model, name=model),
        name=job.run.name and f"{job.run.name}-{model}",
    )
    config.check_experts()
    return config


if __name__ == "__main__":
    run_as_command(main)
