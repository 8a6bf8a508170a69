"""The command `cast-ray analyze`: what a trained model relies on, and where it looks."""

from __future__ import annotations

from cast_ray.command_line import subcommand

__all__ = ["main"]

USAGE = """usage: cast-ray analyze COMMAND [FLAGS]

  robustness   accuracy on damaged clips: does the model use time, space, sound?
  attention    what the experts of a model look at in each other, for one clip or for the examples of a run

`cast-ray analyze COMMAND --help` explains one command.
"""


def main(arguments: list[str]) -> int:
    """Run `cast-ray analyze ARGUMENTS`; returns the exit status.

    Raises:
        UserError: there is no such command, or as the command.
    """
    command = subcommand("analyze", arguments, {"robustness": _robustness, "attention": _attention}, USAGE)
    return 0 if command is None else command(arguments[1:])


def _robustness(arguments: list[str]) -> int:
    from cast_ray.explain.robustness_command import main as robustness

    return robustness(arguments)


def _attention(arguments: list[str]) -> int:
    from cast_ray.explain.attention_command import main as attention

    return attention(arguments)
