"""How a measurement runs in a process of its own: with its own memory, a time limit, and nobody harmed if it dies."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any, TypeVar

__all__ = ["NoResultError", "run_apart"]

Argument = TypeVar("Argument")

SECONDS_TO_LEAVE = 20
"""How long a process that has answered may take to end by itself."""
REASON_LENGTH = 400
"""Characters of an error that are reported; compilers write pages."""


class NoResultError(Exception):
    """The measurement failed, ran out of memory or took too long; the message says which."""


def run_apart(
    function: Callable[[Argument], dict[str, Any]], argument: Argument, *, time_limit: float
) -> dict[str, Any]:
    """The result of `function(argument)`, computed in a fresh process.

    Args:
        function: importable by name, as the process has to find it again.
        argument: anything that pickles.
        time_limit: seconds, imports included.

    Raises:
        NoResultError: the function raised, the process died, or the limit passed.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_call, args=(sender, function, argument))
    process.start()
    sender.close()
    try:
        if not receiver.poll(time_limit):
            raise NoResultError(f"not finished after the time limit of {time_limit:g} s")
        result, error = receiver.recv()
        process.join(SECONDS_TO_LEAVE)
    except EOFError:
        process.join()
        raise NoResultError(_death(process.exitcode)) from None
    finally:
        _end(process)
    if error is not None:
        raise NoResultError(error)
    return result


def _call(sender: Connection, function: Callable[[Any], dict[str, Any]], argument: Any) -> None:
    os.setsid()  # a group of its own, so that compilers that it started end with it
    try:
        answer: tuple[dict[str, Any] | None, str | None] = (function(argument), None)
    except Exception as error:  # whatever it is, the other variants still have their turn
        answer = None, _explain(error)
    sender.send(answer)


def _end(process: SpawnProcess) -> None:
    """Kill the process, if it still runs, and everything that it started."""
    if process.is_alive():
        process.kill()
    if process.pid is not None:
        with suppress(ProcessLookupError):  # it started nothing, or died before it had a group
            os.killpg(process.pid, signal.SIGKILL)
    process.join()


def _explain(error: Exception) -> str:
    """The error in a few lines; of a compiler's pages, those that name an error."""
    lines = str(error).splitlines()
    errors = [line.strip() for line in lines if "error:" in line]
    return " | ".join([f"{type(error).__name__}: {lines[0] if lines else ''}", *errors])[:REASON_LENGTH]


def _death(exitcode: int | None) -> str:
    if exitcode == -signal.SIGKILL:
        return "the process was killed, probably by the system for lack of memory"
    return f"the process ended with status {exitcode} and no result"
