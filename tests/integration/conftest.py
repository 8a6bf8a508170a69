"""One real Ray cluster for all integration tests: a head of its own, stopped process by process."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

REPOSITORY = Path(__file__).parents[2]
START_TIMEOUT_S = 120
JOB_TIMEOUT_S = 600


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.ray)


@pytest.fixture(scope="session")
def cluster_environment() -> dict[str, str]:
    """The environment of a shell in which this project is installed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return environment | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
    }


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


class Job:
    """A training job on a Ray cluster of its own, which is this machine and nothing else."""

    def __init__(self, command: list[str], environment: dict[str, str], run: Path) -> None:
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.process = subprocess.Popen(command, env=environment, stdout=self._log, stderr=self._log, cwd=REPOSITORY)
        self.run = run

    def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for something that happens while the job goes on."""
        deadline = time.monotonic() + JOB_TIMEOUT_S
        while not condition():
            assert time.monotonic() < deadline, f"{what} did not come:\n{self.output()}"
            assert self.process.poll() is None, f"ended before {what}:\n{self.output()}"
            time.sleep(0.02)

    def wait_for(self, text: str) -> None:
        """Wait until the user sees a text."""
        self.wait_until(lambda: text in self.output(), text)

    def wait(self) -> str:
        """Wait for the job's end: what the user has seen."""
        self.process.wait(timeout=JOB_TIMEOUT_S)
        return self.output()

    def output(self) -> str:
        self._log.seek(0)
        return self._log.read()

    def checkpoints(self) -> list[Path]:
        """Complete ones, oldest first."""
        return sorted(path.parent for path in self.run.glob("checkpoint_*/state.json"))

    def position(self) -> tuple[int, int]:
        """Epoch and step of the last checkpoint; zeros without one."""
        for folder in reversed(self.checkpoints()):
            place = json.loads((folder / "state.json").read_text())["position"]
            return place["epoch"], place["step"]
        return 0, 0

    def started(self) -> list[psutil.Process]:
        """The job's process and all that it has started."""
        main = psutil.Process(self.process.pid)
        return [main, *main.children(recursive=True)]

    def training_workers(self) -> list[psutil.Process]:
        workers = []
        for process in self.started():
            with contextlib.suppress(psutil.NoSuchProcess):
                if any("RayTrainWorker" in word for word in process.cmdline()):
                    workers.append(process)
        return workers

    def lose_the_machine(self) -> None:
        """Everything ends at once, without a chance to tidy up."""
        for process in self.started():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait(timeout=30)


@pytest.fixture(scope="module")
def start_job(cluster_environment: dict[str, str]) -> Iterator[Callable[..., Job]]:
    """Starts a training job as a user does without a cluster: flags, the run's folder, more of the environment."""
    jobs = []
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:  # short: sockets

        def start(flags: list[str], run: Path, **environment: str) -> Job:
            command = [sys.executable, "jobs/train_ssv2.py", "--small", *flags]
            command += ["--storage", str(run.parent), "--name", run.name]
            environment = cluster_environment | {"RAY_TMPDIR": folder, "OMP_NUM_THREADS": "1"} | environment
            jobs.append(Job(command, environment, run))
            return jobs[-1]

        yield start
        for job in jobs:
            if job.process.poll() is None:
                job.lose_the_machine()


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


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
