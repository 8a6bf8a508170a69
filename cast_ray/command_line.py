"""How a dataclass becomes a command line: flags for every field, errors that name the valid ones."""

from __future__ import annotations

import dataclasses
import difflib
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

import tyro

from cast_ray.errors import UserError

__all__ = ["parse", "subcommand"]

Settings = TypeVar("Settings")
Command = TypeVar("Command")


def parse(
    settings: type[Settings],
    default: Settings,
    *,
    description: str,
    arguments: Sequence[str] | None = None,
    program: str | None = None,
) -> Settings:
    """Parse the command line into `settings`, starting from `default`.

    Args:
        settings: a dataclass; fields that are dataclasses become `--group.field`.
        default: values where no flag is given; `tyro.MISSING` makes a flag required.
        description: shown by `--help`, with examples.
        arguments: the command line without the program's name; None takes that of the process.
        program: the program's name in `--help`; None takes that of the process.

    Raises:
        UserError: an unknown flag, or a value that the settings refuse.
        SystemExit: after `--help`, or when a flag's value cannot be read (the text is printed).
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    _check_flags(given, sorted(["--help", *_flags(settings)]))
    return tyro.cli(settings, default=default, description=description, args=given, prog=program)


def subcommand(group: str, arguments: Sequence[str], commands: Mapping[str, Command], usage: str) -> Command | None:
    """What does the command that the first word of `cast-ray GROUP ARGUMENTS` names; None if help was wanted and shown.

    Raises:
        UserError: there is no such command.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage, end="")  # noqa: T201
        return None
    if arguments[0] not in commands:
        raise UserError(f"unknown command '{group} {arguments[0]}'; use one of {sorted(commands)}")
    return commands[arguments[0]]


def _flags(settings: Any, prefix: str = "") -> Iterator[str]:
    """The flags that tyro makes of a dataclass; a boolean field has the flag that turns it on and the one off."""
    hints = get_type_hints(settings, include_extras=True)
    for field in dataclasses.fields(settings):
        hint, marks = _without_marks(hints[field.name])
        name = field.name.replace("_", "-")
        if dataclasses.is_dataclass(hint):
            hidden = any(getattr(mark, "name", None) == "" for mark in marks)
            yield from _flags(hint, prefix if hidden else f"{prefix}{name}.")
        elif not any(mark is tyro.conf.Positional for mark in marks):
            yield f"--{prefix}{name}"
            if hint is bool:
                yield f"--{prefix}no-{name}"


def _without_marks(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    if get_origin(hint) is Annotated:
        inner, *marks = get_args(hint)
        return inner, tuple(marks)
    return hint, ()


def _check_flags(given: list[str], flags: list[str]) -> None:
    """Raise `UserError` at the first unknown flag, before missing ones are complained about."""
    for word in given:
        flag = word.split("=", 1)[0].replace("_", "-")
        if flag.startswith("--") and flag not in flags:
            near = difflib.get_close_matches(flag, flags, n=3, cutoff=0.5)
            suggestion = f"; did you mean {' or '.join(near)}?" if near else "."
            raise UserError(f"unknown flag {flag}{suggestion} Valid flags: {' '.join(flags)}")
