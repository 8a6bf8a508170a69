"""How a dataclass becomes a command line: flags for every field, errors that name the valid ones."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Sequence
from typing import TypeVar

import tyro

from cast_ray.errors import UserError

__all__ = ["parse"]

Settings = TypeVar("Settings")


def parse(
    settings: type[Settings], default: Settings, *, description: str, arguments: Sequence[str] | None = None
) -> Settings:
    """Parse the command line into `settings`, starting from `default`.

    Args:
        settings: a dataclass; fields that are dataclasses become `--group.field`.
        default: values where no flag is given; `tyro.MISSING` makes a flag required.
        description: shown by `--help`, with examples.
        arguments: the command line without the program's name; None takes that of the process.

    Raises:
        UserError: an unknown flag, or a value that the settings refuse.
        SystemExit: after `--help`, or when a flag's value cannot be read (the text is printed).
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    parsed, unknown = tyro.cli(settings, default=default, description=description, args=given, return_unknown_args=True)
    if unknown:
        raise UserError(_unknown_flag(unknown[0], _flags(settings, default)))
    return parsed


def _flags(settings: type[Settings], default: Settings) -> list[str]:
    parser = tyro.extras.get_parser(settings, default=default)
    return sorted({flag for action in parser._actions for flag in action.option_strings if flag.startswith("--")})


def _unknown_flag(unknown: str, flags: list[str]) -> str:
    near = difflib.get_close_matches(unknown, flags, n=3, cutoff=0.5)
    suggestion = f"; did you mean {' or '.join(near)}?" if near else "."
    return f"unknown flag {unknown}{suggestion} Valid flags: {' '.join(flags)}"
