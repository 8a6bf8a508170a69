"""What ends a worker that hangs: a thread that expects a sign of life within a time limit."""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable

__all__ = ["EXIT_HUNG", "Watchdog"]

EXIT_HUNG = 70
"""Exit status of a worker that was ended because it hung."""


class Watchdog:
    """Ends the process when `beat` was not called for `limit_s`; Ray Train then starts the workers anew.

    Nothing gentler helps: a thread that waits in a collective, a driver call or a system call cannot be interrupted.
    Before, the stacks of all threads go to the log.

    Args:
        limit_s: longest time between two beats, in seconds.
        start_limit_s: the same until the first call of `begin`: loading and compiling take their time.
        say: is told what happened, before the end.
        end: called last, with an exit status.
    """

    def __init__(
        self,
        *,
        limit_s: float,
        start_limit_s: float,
        say: Callable[[str], None],
        end: Callable[[int], object] = os._exit,
    ) -> None:
        self._limit_s = limit_s
        self._current_limit_s = start_limit_s
        self._say = say
        self._end = end
        self._doing = "starting"
        self._since = time.monotonic()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    def beat(self, doing: str) -> None:
        """Give a sign of life, and say what is done next."""
        self._doing, self._since = doing, time.monotonic()

    def begin(self) -> None:
        """From here on the ordinary limit holds."""
        self._current_limit_s = self._limit_s

    def close(self) -> None:
        self._closed.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._closed.wait(min(1.0, self._limit_s / 10)):
            silent = time.monotonic() - self._since
            if silent > self._current_limit_s:
                self._give_up(silent)
                return

    def _give_up(self, silent: float) -> None:
        faulthandler.dump_traceback(file=sys.__stderr__ or sys.stderr, all_threads=True)
        self._say(
            f"no sign of life for {silent:.0f} s while {self._doing}; the worker is ended (its threads' stacks are in "
            "its log). If it was only slow, raise --scale.hang-timeout-s"
        )
        self._end(EXIT_HUNG)
