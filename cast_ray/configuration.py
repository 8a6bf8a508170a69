"""How the whole configuration of a run is printed, kept beside the run, found again, and compared.

A configuration has a place: the name of a recipe, a run's folder, a checkpoint's folder, or a JSON file such as
`--print-config` prints. Folders and files may be URIs (s3://, gs://).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cast_ray.command_line import parse, subcommand
from cast_ray.config import RunConfig
from cast_ray.errors import UserError
from cast_ray.recipes import RECIPES

__all__ = [
    "CONFIG_FILE",
    "configuration_text",
    "differences",
    "flat_settings",
    "main",
    "read_configuration",
    "write_configuration",
]

CONFIG_FILE, STATE_FILE, CHECKPOINT = "config.json", "state.json", "checkpoint"
"""In a run's folder; in a checkpoint's folder (with the configuration under "config"); how the latter's name begins."""

USAGE = """usage: cast-ray config COMMAND [FLAGS]

  diff A B   the settings that differ between two configurations

A and B are names of recipes, folders of runs or checkpoints, or files that a job's --print-config has printed.
`cast-ray config COMMAND --help` explains one command.
"""


@dataclass(frozen=True, kw_only=True)
class Diff:
    """Flags of `cast-ray config diff`."""

    places: Annotated[tuple[str, str], tyro.conf.Positional]
    """Two recipes, folders of runs or checkpoints, or JSON files."""


def main(arguments: list[str]) -> int:
    """Run `cast-ray config` with the words behind it; returns the exit status.

    Raises:
        UserError: an unknown command or flag, or a configuration that cannot be read.
    """
    commands: dict[str, Callable[[list[str]], int]] = {"diff": _diff}
    run = subcommand("config", arguments, commands, USAGE)
    return 0 if run is None else run(arguments[1:])


def _diff(arguments: list[str]) -> int:
    settings = parse(
        Diff,
        Diff(places=tyro.MISSING),
        description="Show the settings that differ between two configurations; the exit status is 1 if there are any. "
        "Examples: cast-ray config diff ssv2 k400; cast-ray config diff ek100 s3://bucket/runs/first",
        arguments=arguments,
        program="cast-ray config diff",
    )
    one, other = settings.places
    rows = differences(read_configuration(one), read_configuration(other))
    if not rows:
        print("no difference")  # noqa: T201
        return 0
    table = Table("setting")
    for place in settings.places:
        table.add_column(Text(place))
    for name, left, right in rows:
        table.add_row(name, Text(json.dumps(left)), Text(json.dumps(right)))
    console = Console()
    # A pipe counts as 80 columns wide, and would lose the ends of names.
    needed = console.measure(table, options=console.options.update(max_width=10_000)).maximum
    Console(width=max(console.width, needed)).print(table)
    return 1


def configuration_text(config: RunConfig) -> str:
    """All settings as JSON, ended by a line break."""
    return json.dumps(config.to_dict(), indent=2) + "\n"


def read_configuration(place: str) -> RunConfig:
    """The configuration of a recipe, run, checkpoint or file; a recipe's name comes before a folder of that name.

    Raises:
        UserError: there is nothing of that kind, or its content is no configuration of this version.
    """
    if place in RECIPES:
        return RECIPES[place]()
    path, content = _load(place)
    try:
        values = json.loads(content)
        if path.endswith(f"/{STATE_FILE}"):
            values = values["config"]
        if not isinstance(values, dict):
            raise TypeError(f"it holds {str(values)[:40]!r}")
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"'{path}' is not a configuration: {error}; give a file that --print-config has printed, or {CONFIG_FILE} "
            "of a run"
        ) from error
    try:
        return RunConfig.from_dict(values)
    except UserError as error:
        raise UserError(f"'{path}': {error}") from error


def write_configuration(config: RunConfig, folder: str) -> None:
    """Keep the configuration as config.json in the run's folder, complete before it is visible.

    A run that goes on from a checkpoint keeps the file that it has: settings that change the result are the same in any
    case, and a command that will be refused must not replace it.

    Args:
        config: of the run, with its name.
        folder: path or URI of the run; it is made if missing.

    Raises:
        UserError: the disk is full.
    """
    from pyarrow.fs import FileSelector

    from cast_ray.data.storage import filesystem, written_whole

    storage, path = filesystem(folder)
    present = {info.base_name for info in storage.get_file_info(FileSelector(path, allow_not_found=True))}
    if CONFIG_FILE in present and any(name.startswith(CHECKPOINT) for name in present):
        return
    storage.create_dir(path, recursive=True)
    with written_whole(storage, f"{path}/{CONFIG_FILE}") as sink:
        sink.write(configuration_text(config).encode())


def flat_settings(settings: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Names and values of what `RunConfig.to_dict` returns, without levels: optim.base_lr and so on."""
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from flat_settings(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def differences(one: RunConfig, other: RunConfig) -> list[tuple[str, Any, Any]]:
    """Name (as in the flag), value here and value there of every setting that differs."""
    left, right = dict(flat_settings(one.to_dict())), dict(flat_settings(other.to_dict()))
    return [(name.replace("_", "-"), left[name], right[name]) for name in left if left[name] != right[name]]


def _load(place: str) -> tuple[str, bytes]:
    """Path and bytes of the file that holds the configuration of a run, a checkpoint or a file."""
    from pyarrow.fs import FileType

    from cast_ray.data.storage import filesystem

    storage, path = filesystem(place)
    candidates = [path, f"{path}/{CONFIG_FILE}", f"{path}/{STATE_FILE}"]
    try:
        for info in storage.get_file_info(candidates):
            if info.type == FileType.File:
                with storage.open_input_stream(info.path) as source:
                    return info.path, source.read()
    except OSError as error:
        raise UserError(f"cannot read the configuration of '{place}': {error}; give one that you may read") from error
    raise UserError(
        f"there is no configuration '{place}'; give a recipe ({', '.join(RECIPES)}), the folder of a run or checkpoint "
        f"(with {CONFIG_FILE} or {STATE_FILE}), or a JSON file"
    )
