"""How a drill of this folder gets a Ray head of its own, with token authentication, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from ports import free_ports
from rich.console import Console

__all__ = ["REPOSITORY", "Clock", "Head", "fetch", "nodes", "run", "start_head", "stop"]

REPOSITORY = Path(__file__).parents[2]
START_TIMEOUT_S = 180
CONSOLE = Console(highlight=False, markup=False, soft_wrap=True)


class Clock:
    """Prints lines with the seconds since its making."""

    def __init__(self) -> None:
        self._begun = time.monotonic()

    def say(self, text: str) -> None:
        for line in text.splitlines():
            CONSOLE.print(f"{time.monotonic() - self._begun:6.1f} s  {line}")


@dataclass(frozen=True, kw_only=True)
class Head:
    """A running head."""

    gcs: str
    """For `ray.init(address=...)`."""
    dashboard: str
    """For `ray job submit --address ...`."""
    folder: Path
    """Ray's temporary folder; its logs are under session_latest/logs."""
    environment: dict[str, str]
    """Of a shell that may use the cluster: the token is in it."""
    token: str
    process: psutil.Process


@contextlib.contextmanager
def start_head(flags: list[str], variables: dict[str, str], port: int, address: str = "127.0.0.1") -> Iterator[Head]:
    """Start a head as the cluster files do, with other ports, and stop all that came of it afterwards.

    Args:
        flags: more of `ray start --head`.
        variables: more of its environment.
        port: of the GCS.
        address: of this machine, for the other nodes.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # so that the head does not stay behind
    dashboard, agent, metrics = free_ports(3)
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:  # short: sockets
        token = Path(folder) / "token"
        token.write_text(secrets.token_hex(32))
        clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        environment = clean | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_USAGE_STATS_ENABLED": "0",
            "OMP_NUM_THREADS": "1",
        }
        command = ["ray", "start", "--head", "--block", f"--port={port}", f"--dashboard-port={dashboard}"]
        command += [f"--dashboard-agent-listen-port={agent}", f"--metrics-export-port={metrics}"]
        command += [f"--temp-dir={folder}", f"--node-ip-address={address}", *flags]
        with open(f"{folder}/start.log", "w") as log:
            started = subprocess.Popen(
                command, env=environment | variables, stdout=log, stderr=log, start_new_session=True, cwd=REPOSITORY
            )
        process = psutil.Process(started.pid)
        try:
            _wait_for(f"http://127.0.0.1:{dashboard}/api/version", started, Path(log.name))
            yield Head(
                gcs=f"{address}:{port}",
                dashboard=f"http://127.0.0.1:{dashboard}",
                folder=Path(folder),
                environment=environment,
                token=token.read_text(),
                process=process,
            )
        finally:
            if started.poll() is not None:
                CONSOLE.print("the head ended by itself:\n", Path(log.name).read_text()[-2000:])
            stop(process)
            started.wait(timeout=30)


def run(command: list[str], head: Head, *, timeout_s: float) -> tuple[int, str]:
    """Run a command of a user at the cluster: exit status, and what it printed."""
    done = subprocess.run(
        command,
        env=head.environment,
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    return done.returncode, done.stdout


def fetch(head: Head, address: str) -> str:
    """What the dashboard, or another port of the cluster, answers to somebody who has the token."""
    request = urllib.request.Request(address, headers={"Authorization": f"Bearer {head.token}"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read().decode()


def nodes(head: Head) -> list[dict[str, Any]]:
    """All nodes, dead ones too, from the dashboard's state interface."""
    return json.loads(fetch(head, f"{head.dashboard}/api/v0/nodes?limit=1000&detail=1"))["data"]["result"]["result"]


def stop(process: psutil.Process) -> None:
    """End a process and all that it has started, and nothing else."""
    processes = [*process.children(recursive=True), process] if process.is_running() else []
    for each in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.terminate()
    _, alive = psutil.wait_procs(processes, timeout=10)
    for survivor in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            survivor.kill()


def _wait_for(url: str, process: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        assert process.poll() is None, f"the head stopped while starting:\n{log.read_text()}"
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except urllib.error.HTTPError:
            return  # it wants the token
        except OSError:
            time.sleep(0.5)
    raise AssertionError(f"no answer from {url} within {START_TIMEOUT_S} s:\n{log.read_text()}")
