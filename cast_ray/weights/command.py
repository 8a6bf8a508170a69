"""The command `cast-ray weights`: fetch weights by name, show what a file is, list the names that work."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table

from cast_ray.command_line import parse, subcommand
from cast_ray.errors import UserError
from cast_ray.models.spec import AUDIO, SPATIAL, TEMPORAL
from cast_ray.weights.known import KNOWN, KnownWeights

__all__ = ["main"]

USAGE = """usage: cast-ray weights COMMAND [FLAGS]

  fetch NAME...        download weights into the local folder, for example ViT-B-16/openai MCG-NJU/videomae-base
  show FILE_OR_NAME    what a checkpoint is: layout, family, sizes, and the models that it fits
  list                 names that are known to work, by role, with licence and size

The local folder is CAST_RAY_WEIGHTS, by default ~/.cache/cast_ray/weights, or --folder. For machines without a network
fetch elsewhere and copy the folder. `cast-ray weights COMMAND --help` explains one command.
"""

WIDE = 150
"""Characters of a terminal's line from which on `list` says what the weights are."""


@dataclass(frozen=True, kw_only=True)
class Fetch:
    """Flags of `cast-ray weights fetch`."""

    names: Annotated[tuple[str, ...], tyro.conf.Positional]
    """MODEL/TAG of open_clip, or repositories of the Hugging Face hub."""
    folder: Path | None = None
    """Where to put them; default: CAST_RAY_WEIGHTS, else ~/.cache/cast_ray/weights."""


@dataclass(frozen=True, kw_only=True)
class Show:
    """Flags of `cast-ray weights show`."""

    source: Annotated[str, tyro.conf.Positional]
    """A file, a folder, or a name."""
    folder: Path | None = None
    """Where weights with names lie; default: CAST_RAY_WEIGHTS, else ~/.cache/cast_ray/weights."""
    json: bool = False
    """Print JSON instead of a table."""


@dataclass(frozen=True, kw_only=True)
class List:
    """Flags of `cast-ray weights list`."""

    folder: Path | None = None
    """Where weights with names lie; default: CAST_RAY_WEIGHTS, else ~/.cache/cast_ray/weights."""
    json: bool = False
    """Print JSON instead of a table."""


def main(arguments: list[str]) -> int:
    """Run `cast-ray weights` with the words behind it; returns the exit status.

    Raises:
        UserError: an unknown command or flag, or weights that cannot be found, fetched or read.
    """
    commands: dict[str, Callable[[list[str]], int]] = {"fetch": _fetch, "show": _show, "list": _list}
    run = subcommand("weights", arguments, commands, USAGE)
    return 0 if run is None else run(arguments[1:])


def _fetch(arguments: list[str]) -> int:
    settings = parse(
        Fetch,
        Fetch(names=tyro.MISSING),
        description="Download weights into the local folder. Examples: cast-ray weights fetch ViT-B-16/openai; "
        "cast-ray weights fetch MCG-NJU/videomae-base MIT/ast-finetuned-audioset-10-10-0.4593 --folder /shared/weights",
        arguments=arguments,
        program="cast-ray weights fetch",
    )
    from cast_ray.weights.hub import fetch, is_name

    if not settings.names:
        raise UserError("nothing to fetch; give one or more names such as ViT-B-16/openai (`cast-ray weights list`)")
    console = Console(soft_wrap=True)
    for name in settings.names:
        if not is_name(name):
            raise UserError(f"'{name}' is no name of weights; a name has two parts, such as ViT-B-16/openai")
        console.print(f"{name}: {fetch(name, settings.folder)}", markup=False, highlight=False)
    return 0


def _show(arguments: list[str]) -> int:
    settings = parse(
        Show,
        Show(source=tyro.MISSING),
        description="Show what a checkpoint is. Examples: cast-ray weights show clip.safetensors; "
        "cast-ray weights show ViT-B-16/openai --json",
        arguments=arguments,
        program="cast-ray weights show",
    )
    from cast_ray.weights.describe import describe
    from cast_ray.weights.read import read_checkpoint

    path = _find(settings.source, settings.folder)
    found = describe(read_checkpoint(path))
    if settings.json:
        print(json.dumps({"source": settings.source, "path": str(path), **asdict(found)}, indent=2))  # noqa: T201
        return 0
    rows = [("path", str(path)), ("layout", found.layout or "unknown")]
    rows += [
        ("tensors", f"{found.tensors:,}"),
        ("parameters", f"{found.parameters:,}"),
        ("types", ", ".join(found.types)),
    ]
    for role, expert in found.experts.items():
        start = f"{role}: " if role else ""
        rows += [
            *([(f"{start}family", " or ".join(expert.families))] if expert.families else []),
            (f"{start}width, depth", f"{expert.width}, {expert.depth}"),
            (f"{start}patch", _times(expert.patch)),
            (f"{start}grid", _times(expert.grid) if expert.grid else "not in the file"),
            *([(f"{start}classes", str(expert.classes))] if expert.classes else []),
            *([(f"{start}fits", _shortened(expert.models))] if expert.families else []),
        ]
    if found.layout is None:
        rows.append(("names", ", ".join(found.names)))
    table = Table(show_header=False, box=None)
    for row in rows:
        table.add_row(*row)
    Console(soft_wrap=True).print(table)
    return 0


def _find(source: str, folder: Path | None) -> Path:
    """The file or folder to look into; a name is not downloaded for that."""
    from cast_ray.weights.hub import complete, is_name, locate, weights_folder

    if not is_name(source):
        return locate(source)
    path = complete(source, folder)
    if path is None:
        raise UserError(
            f"'{source}' is not in {weights_folder(folder)}; `cast-ray weights fetch {source}` downloads it"
        )
    return path


def _list(arguments: list[str]) -> int:
    settings = parse(
        List,
        List(),
        description="List names of weights that are known to work. Example: cast-ray weights list --folder /shared",
        arguments=arguments,
        program="cast-ray weights list",
    )
    from cast_ray.weights.hub import complete, weights_folder

    here, problems = dict[str, Path | None](), []
    for row in KNOWN:
        try:
            here[row.name] = complete(row.name, settings.folder)
        except UserError as error:
            here[row.name] = None
            problems.append(str(error))
    if settings.json:
        rows = [{**asdict(row), "path": str(here[row.name]) if here[row.name] else None} for row in KNOWN]
        print(json.dumps(rows, indent=2))  # noqa: T201
        return 0
    console = Console()
    for role in (SPATIAL, TEMPORAL, AUDIO):
        console.print(_known_table(role, [row for row in KNOWN if row.role == role], here, wide=console.width >= WIDE))
    for line in (f"Folder: {weights_folder(settings.folder)}", *problems):
        console.print(line, soft_wrap=True, highlight=False, markup=False)
    return 0


def _known_table(role: str, rows: list[KnownWeights], here: dict[str, Path | None], *, wide: bool) -> Table:
    table = Table(title=f"{role} expert", title_justify="left", box=None, pad_edge=False)
    table.add_column("name", no_wrap=True)
    table.add_column("expert")
    table.add_column("licence")
    table.add_column("MB", justify="right")
    table.add_column("here")
    if wide:
        table.add_column("what")
    for row in rows:
        name, expert = row.name, row.expert
        if "/" in expert and not wide:
            # On a line of its own, where the whole value fits: it is what --model.options.spatial takes.
            name, expert = f"{name}\n  expert {expert}", "timm/..."
        cells = [name, expert, row.licence, str(row.megabytes), "yes" if here[row.name] else ""]
        table.add_row(*cells, *([row.about] if wide else []))
    return table


def _times(sizes: tuple[int, ...]) -> str:
    return " x ".join(map(str, sizes))


def _shortened(models: tuple[str, ...], shown: int = 4) -> str:
    if not models:
        return "no named model; vary one with --model.options"
    return ", ".join(models[:shown]) + (f" and {len(models) - shown} more" if len(models) > shown else "")
