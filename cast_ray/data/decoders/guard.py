"""How decoding is kept from failing loudly or for ever: one exception for all faults, and a time limit."""

from __future__ import annotations

import queue
import re
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["Unreadable", "UnreadableVideo", "guarded"]

Result = TypeVar("Result")
Inbox = queue.SimpleQueue[tuple[Callable[[], Any], queue.SimpleQueue[Any]] | None]

_idle: deque[tuple[threading.Thread, Inbox]] = deque()
"""Threads that wait for work: as many as there were calls at the same time."""


class Unreadable(Exception):  # noqa: N818 - a verdict on a file, not a fault of the program
    """A file cannot be decoded; `reason` is one short line for the list of skipped clips."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class UnreadableVideo(Unreadable):
    """The video cannot be decoded."""


def guarded(work: Callable[[], Result], time_limit_s: float, verdict: type[Unreadable] = UnreadableVideo) -> Result:
    """Run `work` in another thread: its failures, and its not coming to an end, become a `verdict`.

    A native loop cannot be interrupted: after a time-out its thread is given up and goes on, until the loop or the
    process ends. Later calls use another thread.
    """
    thread, inbox = _waiting_thread()
    outcome: queue.SimpleQueue[Result | Exception] = queue.SimpleQueue()
    inbox.put((work, outcome))
    try:
        result = outcome.get(timeout=time_limit_s)
    except BaseException as error:
        inbox.put(None)
        if isinstance(error, queue.Empty):
            raise verdict(f"decoding did not finish within {time_limit_s:g} s") from None
        raise
    _idle.append((thread, inbox))
    if isinstance(result, verdict):
        raise result
    if isinstance(result, Exception):
        raise verdict(_short_reason(result)) from result
    return result


def _waiting_thread() -> tuple[threading.Thread, Inbox]:
    while _idle:
        thread, inbox = _idle.pop()
        if thread.is_alive():  # not so in a forked process
            return thread, inbox
    inbox = queue.SimpleQueue()
    thread = threading.Thread(target=_serve, args=(inbox,), name="decode", daemon=True)
    thread.start()
    return thread, inbox


def _serve(inbox: Inbox) -> None:
    while (item := inbox.get()) is not None:
        work, outcome = item
        try:
            outcome.put(work())
        except Exception as error:
            outcome.put(error)
        del item, work, outcome  # a clip would stay in memory until the next one comes


def _short_reason(error: Exception) -> str:
    """The first line of the message, 160 characters at most, without error numbers and places in the libraries."""
    text = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
    places = r"\[\d\d:\d\d:\d\d\] \S+: |Check failed: .* vs\. \S+\) |^\w+, \S+\.cpp:\d+, "
    return re.sub(places, "", text.splitlines()[0])[:160]
