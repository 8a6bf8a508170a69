"""How a preparation or an evaluation shows how far it is: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

__all__ = ["ClipProgress"]

LOG_EVERY_S, LOG_SHARE, LOG_AT_MOST_EVERY_S = 30.0, 0.1, 5.0


class ClipProgress:
    """Shows how many clips are done while the block runs; `update` may be called at any time.

    In a log a line comes every `LOG_EVERY_S` seconds, or when another tenth is done, and not more often than every
    `LOG_AT_MOST_EVERY_S` seconds.
    """

    def __init__(
        self,
        console: Console,
        total: int,
        *,
        there: int = 0,
        what: str = "data",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Of `total` clips `there` were done by an earlier run, and do not count in the rate; `what` begins lines."""
        self._console, self._total, self._there, self._clock, self._what = console, total, there, clock, what
        self._bar = Progress(
            TextColumn(f"{what}:"),
            BarColumn(),
            TextColumn("{task.fields[text]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("", total=total, completed=there, text="starting")
        self._started = self._logged = clock()
        self._logged_done = there

    def __enter__(self) -> ClipProgress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def update(self, done: int) -> None:
        """Show that `done` clips of all are done."""
        now = self._clock()
        text = self._text(done, now - self._started)
        self._bar.update(self._task, completed=done, text=text)
        waited = now - self._logged
        another_part = done - self._logged_done >= LOG_SHARE * self._total and waited >= LOG_AT_MOST_EVERY_S
        if (waited >= LOG_EVERY_S or another_part) and not self._console.is_terminal:
            self._console.print(f"{self._what}: {text}", soft_wrap=True, highlight=False)
            self._logged, self._logged_done = now, done

    def _text(self, done: int, seconds: float) -> str:
        text = f"{done:,} of {self._total:,} clips ({done / max(self._total, 1):.0%})"
        made = max(0, done - self._there)
        if not made or seconds <= 0:
            return f"{text}, no new one yet"
        left = round((self._total - done) * seconds / made)
        return f"{text}, {made / seconds:.1f} clips/s, {left // 3600}:{left // 60 % 60:02}:{left % 60:02} left"
