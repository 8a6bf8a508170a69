"""How files are loaded in a process of their own: a decoder that crashes, hangs or eats memory harms nobody else.

The process is asked by lines of JSON and answers with a line of JSON and an .npz: no pickle, whatever it may have been
turned into by a file. It is started by a command line and not by multiprocessing, which would run the main module of
whoever uses this again.
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
import resource
import select
import subprocess
import sys
import threading
import time
from typing import Any, BinaryIO

import dacite
import numpy as np

from cast_ray.data.media import Facts
from cast_ray.inference.parts import Loaded, PartLoader

__all__ = ["DecodeProcess"]

MEMORY_BYTES = 4 * 2**30
"""Of data that the process may have: 32 frames of 4K video take 0.8 GB, a file that claims to be larger is refused."""
START_S = 180.0
"""Seconds in which a new process must be ready; it imports torch."""
GRACE_S = 2.0
"""The loader itself gives up after the time limit and says so; what is stuck beyond that is ended."""


class _NoAnswer(Exception):  # noqa: N818 - becomes a reason
    """The process has ended, or takes too long; the message says which."""


class DecodeProcess:
    """Loads one file at a time; calls from several threads wait for one another. `close` ends it.

    Args:
        loader: how.
    """

    def __init__(self, loader: PartLoader) -> None:
        self._loader = loader
        self._lock = threading.Lock()
        self._ready = False
        self._process = self._start()

    def load(self, path: str) -> Loaded:
        """The file at `path`; whatever goes wrong becomes the reason why there is no content."""
        with self._lock:
            try:
                if not self._ready:
                    self._receive(START_S)
                    self._ready = True
                return self._ask(path)
            except _NoAnswer as error:
                self._end()
                self._process = self._start()  # now, so that the next file does not wait for it
                return Loaded(content=None, reason=str(error))

    def close(self) -> None:
        """End the process."""
        self._end()

    def _start(self) -> subprocess.Popen[bytes]:
        self._ready = False
        settings = json.dumps(dataclasses.asdict(self._loader))
        # It finds the modules where this process does, also in a job's working folder; a GPU is not its business.
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "CUDA_VISIBLE_DEVICES": ""}
        return subprocess.Popen(
            [sys.executable, "-m", __name__, settings],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            bufsize=0,
        )

    def _ask(self, path: str) -> Loaded:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(path).encode() + b"\n")
        except BrokenPipeError:
            raise _NoAnswer(self._death()) from None
        # Opening, frames and sound have the limit each.
        head, body = self._receive(self._loader.time_limit_s + GRACE_S)
        facts = None if head["facts"] is None else Facts(**head["facts"])
        if not body:
            return Loaded(content=None, reason=head["reason"], facts=facts)
        with np.load(io.BytesIO(body), allow_pickle=False) as arrays:
            return Loaded(content=dict(arrays), reason=head["reason"], facts=facts)

    def _receive(self, limit_s: float) -> tuple[dict[str, Any], bytes]:
        deadline = time.monotonic() + limit_s
        size = int.from_bytes(self._read(8, deadline, limit_s), "little")
        head = json.loads(self._read(size, deadline, limit_s))
        return head, self._read(head["size"], deadline, limit_s)

    def _read(self, size: int, deadline: float, limit_s: float) -> bytes:
        assert self._process.stdout is not None
        pipe = self._process.stdout.fileno()
        parts, missing = [], size
        while missing:
            ready, _, _ = select.select([pipe], [], [], max(deadline - time.monotonic(), 0))
            if not ready:
                raise _NoAnswer(f"decoding did not finish within {self._loader.time_limit_s:g} s")
            part = os.read(pipe, min(missing, 2**20))
            if not part:
                raise _NoAnswer(self._death())
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)

    def _death(self) -> str:
        status = self._process.wait(GRACE_S)
        return f"the decoder crashed on it (exit status {status})"

    def _end(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


def _serve() -> None:
    """The process: until nobody can ask any more, load files."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print must not come between the answers
    import torch

    torch.set_num_threads(1)
    loader = dacite.from_dict(PartLoader, json.loads(sys.argv[1]), dacite.Config(strict=True))
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    _send(answers, Loaded(content=None))
    for line in sys.stdin.buffer:
        try:
            (loaded,) = loader(json.loads(line))
        except Exception as error:
            loaded = Loaded(content=None, reason=f"it cannot be decoded ({type(error).__name__}: {error})")
        _send(answers, loaded)
        del loaded


def _send(answers: BinaryIO, loaded: Loaded) -> None:
    body = io.BytesIO()
    if loaded.content is not None:
        columns: dict[str, Any] = loaded.content
        np.savez(body, **columns)
    facts = None if loaded.facts is None else dataclasses.asdict(loaded.facts)
    head = json.dumps({"reason": loaded.reason, "facts": facts, "size": body.tell()}).encode()
    answers.write(len(head).to_bytes(8, "little") + head + body.getvalue())
    answers.flush()


if __name__ == "__main__":
    _serve()
