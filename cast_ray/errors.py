"""What went wrong through no fault of the program: the user's mistakes, shown without a stack trace."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from rich.console import Console
from rich.text import Text

__all__ = ["UserError", "run_as_command"]

EXIT_USER_ERROR, EXIT_INTERRUPTED, EXIT_PIPE = 2, 130, 141


class UserError(Exception):
    """Bad input. The message says what is wrong, with which value, and what to do about it."""


def run_as_command(command: Callable[[], int | None]) -> None:
    """Run a command-line entry point: a `UserError` becomes one message and exit status 2.

    Everything else keeps its stack trace, because it is our defect and the trace is what a report needs.
    """
    try:
        status = command()
    except UserError as error:
        Console(stderr=True, soft_wrap=True).print(Text.assemble(("error: ", "bold red"), str(error)))
        sys.exit(EXIT_USER_ERROR)
    except BrokenPipeError:  # the reader of our output, `head` for example, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_PIPE)
    except KeyboardInterrupt:
        Console(stderr=True).print("interrupted")
        sys.exit(EXIT_INTERRUPTED)
    sys.exit(status or 0)
