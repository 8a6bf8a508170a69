"""The `cast-ray` command: tools that need no cluster."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console

from cast_ray.command_line import parse
from cast_ray.errors import UserError, run_as_command

__all__ = ["main"]


@dataclass(frozen=True, kw_only=True)
class Verify:
    """Flags of `cast-ray verify`."""

    files: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Golden files, such as tests/golden/*.json."""


@dataclass(frozen=True, kw_only=True)
class Synthesize:
    """Flags of `cast-ray synthesize`."""

    folder: Annotated[Path, tyro.conf.Positional]
    """Where to write; must not hold a dataset yet."""
    layout: Literal["ssv2", "ek100", "table"] = "ssv2"
    """Annotation layout: ssv2 labels the motion, ek100 motion (verb) and object (noun), table those and the sound."""
    train_clips: int = 1536
    """Clips of the training split."""
    validation_clips: int = 384
    """Clips of the validation split."""
    silent_share: float = 0.0
    """Share of the clips that have no sound track."""
    seed: int = 0
    """The same seed writes the same files."""


@dataclass(frozen=True, kw_only=True)
class Models:
    """Flags of `cast-ray models`."""

    patterns: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Names to list, with * and ? as in a shell (in quotes); all if none is given."""
    classes: tuple[int, ...] = (174,)
    """Classes of the task, which the head's size depends on: one number, or two for verbs and nouns (97 300)."""
    json: bool = False
    """Print JSON with exact numbers and the shape of every input."""


@dataclass(frozen=True, kw_only=True)
class Ensemble:
    """Flags of `cast-ray ensemble`."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Folders of finished runs, or files predictions.parquet, of the same clips."""
    take: tuple[str, ...] = ()
    """FIELD=NUMBER reads one label field from one run instead of all; runs are numbered from 0."""
    output: Path | None = None
    """Parquet file to write the joint predictions to."""


def main() -> None:
    """Entry point of the `cast-ray` script."""
    run_as_command(_main)


def _main() -> int:
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_usage(), end="")  # noqa: T201
        return 0
    if arguments[0] not in COMMANDS:
        raise UserError(f"unknown command '{arguments[0]}'; use one of {sorted(COMMANDS)}")
    return COMMANDS[arguments[0]].run(arguments[1:])


def _usage() -> str:
    calls = {f"{name} {command.takes}".strip(): command.does for name, command in COMMANDS.items()}
    width = max(map(len, calls))
    lines = "".join(f"  {call:<{width}}   {does}\n" for call, does in calls.items())
    return (
        f"usage: cast-ray COMMAND [FLAGS]\n\n{lines}\n`cast-ray COMMAND --help` explains one command. "
        "Training, evaluation and the demonstration are jobs: see jobs/.\n"
    )


def _models(arguments: list[str]) -> int:
    settings = parse(
        Models,
        Models(),
        description="List the named models and their costs. Example: cast-ray models 'cast_*' --classes 97 300",
        arguments=arguments,
        program="cast-ray models",
    )
    from cast_ray.models.listing import LEGEND, WIDTH, class_counts, entries, matching, tables

    names, num_classes = matching(settings.patterns), class_counts(settings.classes)
    with Console(stderr=True).status(f"counting {len(names)} models ..."):
        listed = list(entries(names, num_classes))
    if settings.json:
        models = [entry.to_dict() for entry in listed]
        print(json.dumps({"num_classes": num_classes, "models": models}, indent=2))  # noqa: T201
        return 0
    # A pipe counts as 80 columns wide, and would lose the ends of names.
    console = Console(width=max(Console().width, WIDTH))
    for family, table in tables(listed):
        console.print(family, style="bold", highlight=False)
        console.print(table)
    classes = ", ".join(f"{count} ({field})" for field, count in num_classes.items())
    console.print(f"classes: {classes}\n{LEGEND}", highlight=False, soft_wrap=True)
    return 0


def _ensemble(arguments: list[str]) -> int:
    settings = parse(
        Ensemble,
        Ensemble(runs=tyro.MISSING),
        description=(
            "Average the predictions of finished runs. Examples: cast-ray ensemble runs/spatial runs/temporal; "
            "verbs of the second run and nouns of the first: cast-ray ensemble runs/spatial runs/temporal "
            "--take noun=0 verb=1"
        ),
        arguments=arguments,
        program="cast-ray ensemble",
    )
    from cast_ray.evaluation.ensemble import run

    return run(settings.runs, take=settings.take, output=settings.output, console=Console())


def _metrics(arguments: list[str]) -> int:
    from cast_ray.evaluation.metrics_command import main as metrics

    return metrics(arguments)


def _report(arguments: list[str]) -> int:
    from cast_ray.report.command import main as report

    return report(arguments)


def _analyze(arguments: list[str]) -> int:
    from cast_ray.explain.command import main as analyze

    return analyze(arguments)


def _bench(arguments: list[str]) -> int:
    from cast_ray.bench.command import main as bench

    return bench(arguments)


def _plan(arguments: list[str]) -> int:
    from cast_ray.planning.command import main as plan

    return plan(arguments)


def _weights(arguments: list[str]) -> int:
    from cast_ray.weights.command import main as weights

    return weights(arguments)


def _export(arguments: list[str]) -> int:
    from cast_ray.export.command import main as export

    return export(arguments)


def _predict(arguments: list[str]) -> int:
    from cast_ray.inference.command import main as predict

    return predict(arguments)


def _config(arguments: list[str]) -> int:
    from cast_ray.configuration import main as config

    return config(arguments)


def _inspect(arguments: list[str]) -> int:
    from cast_ray.data.inspection.command import main as inspect

    return inspect(arguments)


def _verify(arguments: list[str]) -> int:
    settings = parse(
        Verify,
        Verify(files=tyro.MISSING),
        description="Compare the model with golden files. Example: cast-ray verify tests/golden/*.json",
        arguments=arguments,
        program="cast-ray verify",
    )
    from cast_ray.verify import run

    return run(list(settings.files))


def _synthesize(arguments: list[str]) -> int:
    settings = parse(
        Synthesize,
        Synthesize(folder=tyro.MISSING),
        description="Write the embedded dataset. Example: cast-ray synthesize /tmp/clips --layout ek100",
        arguments=arguments,
        program="cast-ray synthesize",
    )
    from cast_ray.data.synthetic import SyntheticDataset, synthesize

    if SyntheticDataset.below(settings.folder).complete:
        raise UserError(f"'{settings.folder}' already holds a dataset; give another folder or remove it first")
    console = Console()
    dataset = synthesize(
        settings.folder,
        layout=settings.layout,
        train_clips=settings.train_clips,
        validation_clips=settings.validation_clips,
        seed=settings.seed,
        silent_share=settings.silent_share,
        console=console,
    )
    console.print(f"videos: {dataset.videos}\nannotations: {dataset.annotations}", soft_wrap=True)
    return 0


@dataclass(frozen=True, kw_only=True)
class Command:
    """One command: what it takes, what it does, and what does it."""

    takes: str
    does: str
    run: Callable[[list[str]], int]


COMMANDS: Mapping[str, Command] = {
    "models": Command(
        takes="[PATTERN...]", does="list the named models with parameters, multiply-adds and inputs", run=_models
    ),
    "weights": Command(takes="COMMAND", does="fetch, show and list the experts' weights", run=_weights),
    "export": Command(
        takes="CHECKPOINT", does="write a trained model into one file: experts, trained parts, class names", run=_export
    ),
    "predict": Command(
        takes="CLIP... --checkpoint RUN", does="name what is in video files, or when in a long one", run=_predict
    ),
    "config": Command(takes="COMMAND", does="compare the settings of recipes and runs", run=_config),
    "synthesize": Command(
        takes="FOLDER", does="write the embedded dataset: rendered, encoded, labelled clips", run=_synthesize
    ),
    "inspect": Command(takes="SHARDS", does="show what a prepared dataset holds, with a contact sheet", run=_inspect),
    "metrics": Command(
        takes="RUN [RUN...]", does="measure predictions, with confidence intervals and differences", run=_metrics
    ),
    "report": Command(takes="RUN [RUN...]", does="write one HTML page of runs and their comparison", run=_report),
    "analyze": Command(
        takes="COMMAND", does="find out what a model relies on: damaged clips, and attention", run=_analyze
    ),
    "ensemble": Command(takes="RUN RUN...", does="average the predictions of finished runs", run=_ensemble),
    "verify": Command(
        takes="FILE...", does="compare the model with golden files; one JSON object per file", run=_verify
    ),
    "plan": Command(
        takes="--recipe NAME", does="work out memory, cores, time and cost of a run, and what limits it", run=_plan
    ),
    "bench": Command(takes="COMMAND", does="measure a model's step or the input: speed and memory", run=_bench),
}
