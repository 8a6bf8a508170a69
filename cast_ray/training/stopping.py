"""How a run is asked to stop from outside, and how that reaches the training loop.

* The driver gets SIGTERM (`ray job stop`, a batch system) or SIGINT (Ctrl-C): the whole run is to stop. It tells the
  board, which rank 0 asks every second.
* A worker gets SIGTERM, as on a machine that is taken away: the run is to go on elsewhere.
* Ray announces that it takes a machine away: likewise, and training goes on until it does.

In any case a checkpoint is written first. A second signal ends the process at once, as without all this.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import ray
import ray.train
from ray.actor import ActorHandle

__all__ = ["Preemption", "StopListener", "heeding_signals", "listen_for_sigterm", "worker_asked_to_end"]

Value = TypeVar("Value")
POLL_S = 1.0
WAIT_S = 0.2
LOOK_EVERY_S = 5.0
"""Seconds between two questions whether Ray is about to take a machine away; Ray itself looks as often."""

_asked_to_end = threading.Event()


def worker_asked_to_end() -> bool:
    """Whether this worker process has got a SIGTERM."""
    return _asked_to_end.is_set()


def listen_for_sigterm() -> None:
    """On the main thread of a worker, the only one that Python tells of signals: do not die of the first SIGTERM."""
    previous = signal.getsignal(signal.SIGTERM)

    def ask(number: int, frame: Any) -> None:
        _asked_to_end.set()
        signal.signal(signal.SIGTERM, previous)

    _asked_to_end.clear()
    signal.signal(signal.SIGTERM, ask)


class StopListener:
    """Knows on rank 0 whether the driver was asked to stop the run; asks the board in a thread of its own."""

    def __init__(self, board: ActorHandle) -> None:
        self.signal: str | None = None
        """Name of the signal that the driver got."""
        self._closed = threading.Event()
        threading.Thread(target=self._listen, args=(board,), name="stop-listener", daemon=True).start()

    def close(self) -> None:
        self._closed.set()

    def _listen(self, board: ActorHandle) -> None:
        while self.signal is None and not self._closed.wait(POLL_S):
            with contextlib.suppress(ray.exceptions.RayError):  # without its driver the worker does not live long
                self.signal = ray.get(board.stopped_by.remote(), timeout=60)


class Preemption:
    """Whether Ray is about to take machines away: it says so when a cloud or an operator drains a node."""

    def __init__(self) -> None:
        self._looked = time.monotonic()
        self._known: set[int] = set()

    @property
    def due(self) -> bool:
        """Whether it is time to look again."""
        return time.monotonic() - self._looked > LOOK_EVERY_S

    def look(self) -> list[int]:
        """Ranks whose machines are newly announced to go. A collective."""
        self._looked = time.monotonic()
        info = ray.train.get_preemption_info()
        newly = [] if info is None else [rank for rank in info.preempted_ranks if rank not in self._known]
        self._known.update(newly)
        return newly


def heeding_signals(work: Callable[[], Value], tell: Callable[[str], object]) -> tuple[Value, str | None]:
    """Do `work`, a run, in a thread, and call `tell` with the name of a SIGTERM or SIGINT that comes meanwhile.

    Returns:
        What `work` returned, and the name of the signal that came.

    In a thread, because Ray Train's own handler of SIGINT, which drops the run at once, is only installed on the main
    one. Outside the main thread, as in a Ray task, signals are left as they are.
    """
    if threading.current_thread() is not threading.main_thread():
        return work(), None
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.extend((work(), None))
        except BaseException as error:
            outcome.extend((None, error))

    told = False
    thread = threading.Thread(target=run, name="run", daemon=True)
    with _signals() as received:
        thread.start()
        while thread.is_alive():
            thread.join(WAIT_S)
            if received and not told:
                tell(received[0])
                told = True
    value, error = outcome
    if error is not None:
        raise error
    return value, received[0] if received else None


@contextlib.contextmanager
def _signals() -> Iterator[list[str]]:
    """Names of signals that came; after the first one the previous handlers are back."""
    received: list[str] = []
    numbers = (signal.SIGTERM, signal.SIGINT)
    previous = {number: signal.getsignal(number) for number in numbers}

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    def note(number: int, frame: Any) -> None:
        received.append(signal.Signals(number).name)
        restore()

    for number in numbers:
        signal.signal(number, note)
    try:
        yield received
    finally:
        restore()
