"""The `cast-ray` command: tools that need no cluster."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console

from cast_ray.command_line import parse
from cast_ray.errors import UserError, run_as_command

__all__ = ["main"]

USAGE = """usage: cast-ray COMMAND [FLAGS]

  verify FILE...      compare the model with golden files; one JSON object per file
  synthesize FOLDER   write the embedded dataset: rendered, encoded, labelled clips

`cast-ray COMMAND --help` explains one command. Training, evaluation and the demonstration are jobs: see jobs/.
"""


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
    layout: Literal["ssv2", "ek100"] = "ssv2"
    """Annotation layout: ssv2 labels the motion, ek100 motion (verb) and object (noun)."""
    train_clips: int = 1536
    """Clips of the training split."""
    validation_clips: int = 384
    """Clips of the validation split."""
    seed: int = 0
    """The same seed writes the same files."""


def main() -> None:
    """Entry point of the `cast-ray` script."""
    run_as_command(_main)


def _main() -> int:
    commands: dict[str, Callable[[list[str]], int]] = {"verify": _verify, "synthesize": _synthesize}
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE, end="")  # noqa: T201
        return 0
    if arguments[0] not in commands:
        raise UserError(f"unknown command '{arguments[0]}'; use one of {sorted(commands)}")
    return commands[arguments[0]](arguments[1:])


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
        console=console,
    )
    console.print(f"videos: {dataset.videos}\nannotations: {dataset.annotations}", soft_wrap=True)
    return 0
