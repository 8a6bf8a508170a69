"""What went wrong through no fault of the program: the user's mistakes, shown without a stack trace."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

from rich.console import Console
from rich.text import Text

__all__ = ["Stopped", "UserError", "run_as_command"]

EXIT_USER_ERROR, EXIT_INTERRUPTED, EXIT_PIPE = 2, 130, 141
EXIT_SIGNAL = 128
"""What is added to a signal's number, as shells do."""


class UserError(Exception):
    """Bad input. The message says what is wrong, with which value, and what to do about it."""


class Stopped(Exception):  # noqa: N818
    """A signal asked the program to stop, and it did so at a point from which it can go on.

    Args:
        message: where it stopped, and how it goes on.
        signal_name: for example SIGTERM.
    """

    def __init__(self, message: str, signal_name: str) -> None:
        super().__init__(message)
        self.signal = signal.Signals[signal_name]


def run_as_command(command: Callable[[], int | None]) -> None:
    """Run a command-line entry point: a `UserError` becomes one message and exit status 2.

    Everything else keeps its stack trace, because it is our defect and the trace is what a report needs.
    """
    try:
        status = command()
    except UserError as error:
        Console(stderr=True, soft_wrap=True).print(Text.assemble(("error: ", "bold red"), str(error)))
        sys.exit(EXIT_USER_ERROR)
    except Stopped as stopped:
        Console(stderr=True, soft_wrap=True).print(Text.assemble(("stopped: ", "bold yellow"), str(stopped)))
        sys.exit(EXIT_SIGNAL + stopped.signal)
    except BrokenPipeError:  # the reader of our output, `head` for example, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_PIPE)
    except KeyboardInterrupt:
        Console(stderr=True).print("interrupted")
        sys.exit(EXIT_INTERRUPTED)
    sys.exit(status or 0)
