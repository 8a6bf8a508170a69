"""What all training jobs share: their flags, and the way from the command line to a run.

A job in `jobs/` adds where its data is read from and which recipe it starts with.
"""

from __future__ import annotations

import argparse
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, TypeVar

import tyro
from rich.console import Console

from cast_ray.command_line import parse
from cast_ray.config import RunConfig
from cast_ray.configuration import configuration_text, read_configuration
from cast_ray.data.catalog import PUBLISHED, check_counts
from cast_ray.data.catalog.entries import OnSkip
from cast_ray.data.catalog.source import SourceFlags, say
from cast_ray.data.catalog.splits import split_remarks
from cast_ray.recipes.other_model import with_model
from cast_ray.recipes.small import small

if TYPE_CHECKING:
    from cast_ray.data.manifest import Manifest

__all__ = ["OfficialJob", "TrainingJob", "parse_job", "train_job"]


Job = TypeVar("Job", bound="TrainingJob")


@dataclass(frozen=True, kw_only=True)
class TrainingJob(SourceFlags, ABC):
    """Flags of every training job beside those of the configuration."""

    recipe: ClassVar[str]
    """Name of the recipe that the job starts with."""

    config: str
    """What the settings start from: a recipe, the folder of a run or checkpoint (its name too, so that it goes on),
    or a JSON file. Other flags change single settings of it."""
    small: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Run the same thing small: a tiny network on two CPU cores."""
    print_config: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print all settings as JSON, for --config and `cast-ray config diff`, and do nothing else."""
    worker_logs: bool = False
    """Print the logs of Ray's workers too."""
    run: Annotated[RunConfig, tyro.conf.arg(name="")]

    @abstractmethod
    def clips(self, console: Console) -> Manifest:
        """The clips that --data and --annotations name.

        Args:
            console: where to say what is missing.

        Raises:
            UserError: as the dataset's reader.
        """


@dataclass(frozen=True, kw_only=True)
class OfficialJob(TrainingJob):
    """Flags of the jobs for published datasets."""

    @property
    @abstractmethod
    def published(self) -> str | None:
        """Name in `cast_ray.data.catalog.PUBLISHED`; None: the publishers name no numbers of clips."""

    @abstractmethod
    def read(self, data: str, annotations: str, on_skip: OnSkip) -> Manifest:
        """The clips, by the dataset's reader."""

    def clips(self, console: Console) -> Manifest:
        manifest = self.read(str(self.data), str(self.annotations), self.on_skip(console))
        remark = self.published and check_counts(manifest, PUBLISHED[self.published])
        if remark:
            say(console, "note", remark)
        return manifest


def train_job(job_type: type[TrainingJob], description: str | None, arguments: Sequence[str] | None = None) -> None:
    """Parse, prepare, train, evaluate, report; with --print-config, only parse and print.

    Args:
        job_type: flags, recipe and reader.
        description: for --help, with examples.
        arguments: the command line without the program's name; None takes that of the process.

    Raises:
        UserError: bad input, found before training wherever possible.
        SystemExit: after --help, or when a flag's value cannot be read.
    """
    job = parse_job(job_type, description or "", sys.argv[1:] if arguments is None else arguments)
    if job.print_config:
        print(configuration_text(job.run), end="")  # noqa: T201
        return
    job.check_source()
    job.run.check_experts()
    console = Console()
    source = job.shards or job.clips(console)
    for remark in [] if isinstance(source, str) else split_remarks(source):
        say(console, "note", remark)

    # Imported late, so that --help, a wrong flag and a missing folder answer at once.
    from cast_ray.runs import run

    run(job.run, source, console=console, worker_logs=job.worker_logs)


def parse_job(job_type: type[Job], description: str, arguments: Sequence[str]) -> Job:
    """The job's flags; first those that decide what the others change.

    Raises:
        UserError: an unknown flag, or settings that contradict each other.
        SystemExit: after --help, or when a flag's value cannot be read.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--config", default=job_type.recipe)
    first.add_argument("--small", action="store_true")
    first.add_argument("--model.name", dest="model")
    choice, rest = first.parse_known_args(arguments)
    config = read_configuration(choice.config)
    if choice.model is not None:
        config = with_model(config, choice.model)
    if choice.small:
        config = small(config)
    default = job_type(config=choice.config, small=choice.small, run=config)
    return parse(job_type, default, description=description, arguments=rest)
