"""How a checkpoint is written while training goes on, and what happens when the storage does not take it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime

import pyarrow.fs as pafs
import tenacity

from cast_ray.errors import UserError

__all__ = ["BackgroundWriter"]

LONGEST_WAIT_S = 30.0


class BackgroundWriter:
    """Writes one folder at a time in a thread of its own, and tries again for a while if the storage fails.

    Args:
        storage: where to.
        root: folder in which the folders are made.
        retry_s: seconds after a first failure in which it is tried again.
        say: is told of every failure, from the thread.
    """

    def __init__(self, storage: pafs.FileSystem, root: str, *, retry_s: float, say: Callable[[str], None]) -> None:
        self._storage = storage
        self._root = root
        self._retry_s = retry_s
        self._say = say
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._folder = ""

    @property
    def done(self) -> bool:
        """Whether what was started is complete, or has failed for good."""
        return self._thread is not None and not self._thread.is_alive()

    def start(self, write: Callable[[str], None]) -> None:
        """Begin to write a new folder; `write` fills the path that it is given, again after a failure."""
        self._error = None
        self._folder = f"{self._root}/checkpoint_{datetime.now(UTC):%Y-%m-%d_%H-%M-%S.%f}"
        self._thread = threading.Thread(target=self._run, args=(write,), name="checkpoint", daemon=True)
        self._thread.start()

    def result(self) -> str:
        """Wait for the end; the path of the complete folder.

        Raises:
            UserError: the storage did not take it within the time limit. Nothing of the folder is left.
        """
        if self._thread is None:
            raise RuntimeError("nothing was started")
        self._thread.join()
        self._thread = None
        if self._error is None:
            return self._folder
        if _is_storage_fault(self._error):
            raise UserError(
                f"no checkpoint could be written to {self._root} for {self._retry_s:g} s: {self._error}; free some "
                "space or mend the storage, and start the same command again: it goes on from the last complete "
                "checkpoint"
            ) from self._error
        raise self._error

    def _run(self, write: Callable[[str], None]) -> None:
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(_is_storage_fault),
            stop=tenacity.stop_after_delay(self._retry_s),
            wait=tenacity.wait_exponential(multiplier=0.5, max=LONGEST_WAIT_S),
            before_sleep=self._announce,
            reraise=True,
        )
        try:
            retrying(self._attempt, write)
        except BaseException as error:
            self._error = error

    def _attempt(self, write: Callable[[str], None]) -> None:
        try:
            self._storage.create_dir(self._folder, recursive=True)
            write(self._folder)
        except BaseException:
            with suppress(OSError):
                self._storage.delete_dir(self._folder)
            raise

    def _announce(self, state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome is not None else None
        self._say(f"cannot write a checkpoint: {error}; trying again, training goes on")


def _is_storage_fault(error: BaseException) -> bool:
    # A full disk comes as a UserError from `cast_ray.data.storage`, with the fault as its cause.
    return isinstance(error, OSError) or isinstance(error.__cause__, OSError)
