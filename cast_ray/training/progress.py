"""How rows get from the workers to the driver: an actor between them, and a thread that hands the rows on."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import ray
from ray.actor import ActorHandle

from cast_ray.watching.rows import Row, Watcher

__all__ = ["make_board", "shown"]

POLL_S = 0.5
TAKE_S = 60.0


class _Board:
    """The actor between workers and driver: posted rows wait here until the driver takes them."""

    def __init__(self, run: str) -> None:
        from cast_ray.watching.telemetry import Telemetry

        self._telemetry = Telemetry(run)
        self._rows: list[Row] = []
        self._signal: str | None = None

    def post(self, row: Row) -> None:
        self._rows.append(row)
        self._telemetry.show(row)

    def take(self) -> list[Row]:
        rows, self._rows = self._rows, []
        return rows

    def stop(self, signal: str) -> None:
        self._signal = signal

    def stopped_by(self) -> str | None:
        return self._signal


def make_board(run: str) -> ActorHandle:
    """Start the actor for the run of that name; workers call `board.post.remote(row)` and do not wait.

    The other way goes `board.stop.remote(signal)`: the run is to stop, as `board.stopped_by.remote()` tells.
    """
    from cast_ray.cluster import on_this_node  # takes seconds to import, which the actor's own process need not

    return ray.remote(num_cpus=0, scheduling_strategy=on_this_node())(_Board).remote(run)


@contextmanager
def shown(board: ActorHandle, watchers: Sequence[Watcher]) -> Iterator[None]:
    """Give every row to every watcher while the block runs, in order, and close the watchers after it."""
    stop = threading.Event()

    def take() -> None:
        with suppress(ray.exceptions.RayError):  # the cluster may be going down; the run's own error says more
            for row in ray.get(board.take.remote(), timeout=TAKE_S):
                for watcher in watchers:
                    with suppress(OSError):  # nobody reads the output any more: that is no reason to stop watching
                        watcher.show(row)

    def poll() -> None:
        while not stop.wait(POLL_S):
            take()

    thread = threading.Thread(target=poll, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=TAKE_S + 5)
        take()
        for watcher in watchers:
            watcher.close()
