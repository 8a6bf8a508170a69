"""One real Ray cluster for all integration tests: a head of its own, stopped process by process."""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from ports import free_ports

REPOSITORY = Path(__file__).parents[2]
START_TIMEOUT_S = 120
JOB_TIMEOUT_S = 600


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.ray)


@dataclass(frozen=True)
class Head:
    """Addresses of a running head with two CPUs."""

    gcs: str
    """For `ray.init(address=...)`."""
    dashboard: str
    """For `ray job submit --address ...`."""


@pytest.fixture(scope="session")
def head(cluster_environment: dict[str, str]) -> Iterator[Head]:
    ports = free_ports(3)
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:  # short: sockets
        command = ["ray", "start", "--head", "--block", "--num-cpus=2", "--num-gpus=0", "--disable-usage-stats"]
        command += [f"--port={ports[0]}", f"--dashboard-port={ports[1]}", f"--temp-dir={folder}"]
        command += [f"--dashboard-agent-listen-port={ports[2]}"]  # its default may belong to another cluster here
        command += [f"--object-store-memory={500 * 2**20}", "--node-ip-address=127.0.0.1"]
        with open(f"{folder}/start.log", "w") as log:
            process = subprocess.Popen(command, env=cluster_environment, stdout=log, stderr=log, start_new_session=True)
        try:
            wait_for(f"http://127.0.0.1:{ports[1]}/api/version", process)
            yield Head(gcs=f"127.0.0.1:{ports[0]}", dashboard=f"http://127.0.0.1:{ports[1]}")
        finally:
            stop(process)


@pytest.fixture(scope="session")
def submit(head: Head, cluster_environment: dict[str, str]) -> Callable[..., tuple[int, str]]:
    """`ray job submit`, followed to its end: exit status and what the user sees."""

    def submit(*flags: str, job: str = "train_ssv2", variables: dict[str, str] | None = None) -> tuple[int, str]:
        command = ["ray", "job", "submit", "--address", head.dashboard, "--working-dir", str(REPOSITORY)]
        # The job's environment variables.
        command += ["--runtime-env-json", json.dumps({"env_vars": variables or {}})]
        command += ["--", "python", f"jobs/{job}.py", *flags]
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            finished = subprocess.run(
                command,
                env=cluster_environment,
                capture_output=True,
                text=True,
                timeout=JOB_TIMEOUT_S,
                cwd=REPOSITORY,
                check=False,
            )
            output = finished.stdout + finished.stderr
            # A head answers before the agent that starts jobs is there.
            if "No available agent to submit job" not in output or time.monotonic() > deadline:
                return finished.returncode, output
            time.sleep(1)

    return submit


def wait_for(url: str, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        assert process.poll() is None, "the head stopped while starting"
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    raise AssertionError(f"no answer from {url} within {START_TIMEOUT_S} s")


def stop(process: subprocess.Popen) -> None:
    """Stop the head and what it started, and nothing else; some children outlive a SIGTERM to their parent."""
    started = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    process.terminate()
    _, alive = psutil.wait_procs(started, timeout=10)
    for survivor in alive:
        survivor.kill()
    process.wait(timeout=30)
