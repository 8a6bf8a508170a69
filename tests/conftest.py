"""What holds in every test process; the environment is set before torch and Ray are imported."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from hypothesis import settings
from ports import free_ports
from programs import installed

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from cast_ray.data.manifest import Manifest
    from cast_ray.data.media import MediaFormat
    from cast_ray.data.shards import ShardedDataset

REPOSITORY = Path(__file__).parents[1]
JOB_TIMEOUT_S = 1800
"""For one job, on a machine that has much else to do; pytest's own limit may be lower."""

os.environ |= {"OMP_NUM_THREADS": "1", "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}

# On a busy machine an example can take a hundred times as long as on an idle one.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """The machine's cores belong to several processes, and one thread adds in one order."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium for pages of this machine; its event loop ends with the module, as asyncio allows one at a time."""
    from playwright.sync_api import sync_playwright

    chromium = installed("chromium", "google-chrome")
    quiet = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu", *quiet])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def sharded() -> Callable[..., ShardedDataset]:
    """Prepares a dataset in this process, without Ray."""
    from cast_ray.data.ingest import stored_clips
    from cast_ray.data.media import MediaFormat
    from cast_ray.data.shards import shard_plan, write_index, write_shard

    def sharded(manifest: Manifest, root: Path, media_format: MediaFormat | None = None) -> ShardedDataset:
        media_format = media_format or MediaFormat()
        rows = [
            write_shard(str(root), plan.path, stored_clips(plan.clips, media_format)) for plan in shard_plan(manifest)
        ]
        return write_index(str(root), manifest, media_format, rows)

    return sharded


class S3Server:
    """A server that speaks S3, on a port of its own; its data outlives a stop."""

    def __init__(self) -> None:
        self._port = 0
        self.start()

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to reach it."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._port}",
            "AWS_ACCESS_KEY_ID": "nobody",
            "AWS_SECRET_ACCESS_KEY": "nothing",
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def start(self) -> None:
        from moto.server import ThreadedMotoServer

        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=self._port, verbose=False)
        self._server.start()
        _, self._port = self._server.get_host_and_port()

    def stop(self) -> None:
        self._server.stop()


@pytest.fixture
def s3_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """A running S3 server, which this process's S3 URIs mean."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = S3Server()
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    yield server
    server.stop()


@pytest.fixture
def s3_bucket(s3_server: S3Server) -> str:
    """The URI of a new bucket; `s3_server.environment` takes other processes there."""
    import pyarrow.fs as pafs

    name = f"bucket-{uuid.uuid4().hex}"
    pafs.FileSystem.from_uri(f"s3://{name}?allow_bucket_creation=true")[0].create_dir(name)
    return f"s3://{name}"


GCS_SERVER = """
import http.server, sys
http.server.HTTPServer = http.server.ThreadingHTTPServer  # it answers one connection at a time otherwise
from gcp_storage_emulator.server import create_server
server = create_server("127.0.0.1", int(sys.argv[1]), in_memory=True, default_bucket=sys.argv[2])
server.start()
print("ready", flush=True)
sys.stdin.read()
server.stop()
"""


@pytest.fixture
def gcs_bucket() -> Iterator[str]:
    """The URI of a new bucket of a server that speaks Google's protocol; names go before its `?`.

    The server is a process of its own, because Arrow may hold this one's lock while it waits for an answer.
    """
    (port,), name = free_ports(1), f"bucket-{uuid.uuid4().hex}"
    command = [sys.executable, "-c", GCS_SERVER, str(port), name]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == b"ready\n"
        yield f"gs://anonymous@{name}?scheme=http&endpoint_override=127.0.0.1:{port}"
        assert server.stdin is not None
        server.stdin.close()


@pytest.fixture(scope="session")
def cluster_environment() -> dict[str, str]:
    """The environment of a shell in which this project is installed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return environment | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
    }


class Faults:
    """What goes wrong in the processes of a job that has `environment`; tests/faults says what there is."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def environment(self) -> dict[str, str]:
        return {"FAULTS": str(self._folder), "PYTHONPATH": f"{REPOSITORY / 'tests' / 'faults'}:{REPOSITORY}"}

    def begin(self, fault: str, value: object = "") -> None:
        part = self._folder / f".{fault}"
        part.write_text(str(value))
        part.rename(self._folder / fault)

    def end(self, fault: str) -> None:
        (self._folder / fault).unlink()

    def pending(self, fault: str) -> bool:
        return (self._folder / fault).exists()


@pytest.fixture
def faults(tmp_path: Path) -> Faults:
    """No fault yet."""
    folder = tmp_path / "faults"
    folder.mkdir()
    return Faults(folder)


class Job:
    """A training job that a test disturbs: its process, what the user sees, and its checkpoints.

    Args:
        command: with everything after it.
        environment: of the process.
        run: folder of the run.
        nodes: returns the processes of the cluster that it joins, if it does not start one of its own.
    """

    def __init__(
        self,
        command: list[str],
        environment: dict[str, str],
        run: Path,
        nodes: Callable[[], list[psutil.Process]] = list,
    ) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115
        self._nodes = nodes
        self.process = subprocess.Popen(command, env=environment, stdout=self._log, stderr=self._log, cwd=REPOSITORY)
        self.run = run

    def wait_until(self, condition: Callable[[], object], what: str) -> None:
        """Wait for something that happens while the job goes on."""
        deadline = time.monotonic() + JOB_TIMEOUT_S
        while not condition():
            assert time.monotonic() < deadline, f"{what} did not come:\n{self.output()}"
            assert self.process.poll() is None, f"ended before {what}:\n{self.output()}"
            time.sleep(0.02)

    def wait_for(self, text: str) -> None:
        """Wait until the user sees a text."""
        self.wait_until(lambda: text in self.output(), text)

    def wait_for_steps(self, number: int, *, after: str = "") -> None:
        """Wait until the user sees so many lines about steps behind the last occurrence of a text."""
        self.wait_until(lambda: len(self.steps(after)) >= number, f"{number} lines about steps after '{after}'")

    def wait(self) -> str:
        """Wait for the job's end: what the user has seen."""
        self.process.wait(timeout=JOB_TIMEOUT_S)
        return self.output()

    def output(self) -> str:
        # At a position of its own: the job writes at that of the file, which it shares with this process.
        log = self._log.fileno()
        return os.pread(log, os.fstat(log).st_size, 0).decode(errors="replace")

    def steps(self, after: str = "") -> list[int]:
        """Updates of the run that the user has seen lines about, behind the last occurrence of a text."""
        _, found, rest = self.output().rpartition(after) if after else ("", "all", self.output())
        return [int(step) for step in re.findall(r" step +(\d+)  loss ", rest)] if found else []

    def checkpoints(self) -> list[Path]:
        """Complete ones, oldest first."""
        return sorted(path.parent for path in self.run.glob("checkpoint_*/state.json"))

    def position(self) -> tuple[int, int]:
        """Epoch and step of the last checkpoint; zeros without one."""
        for folder in reversed(self.checkpoints()):
            with contextlib.suppress(FileNotFoundError):  # only the last few are kept
                place = json.loads((folder / "state.json").read_text())["position"]
                return place["epoch"], place["step"]
        return 0, 0

    def processes(self, title: str = "") -> dict[psutil.Process, str]:
        """Ray's processes for the job that have a text in their title, such as RayTrainWorker or ClipLoader.

        On a cluster that it has joined, also those that the cluster keeps for other jobs.
        """
        found = {}
        for root in (psutil.Process(self.process.pid), *self._nodes()):
            for process in root.children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    name = " ".join(process.cmdline())
                    if name.startswith("ray::") and title in name and "Agent" not in name:
                        found[process] = name
        return found

    def kill(self) -> None:
        """The job's process ends at once, and what it has started too: the whole machine if the job has its own."""
        own = [psutil.Process(self.process.pid)]
        for process in [*own, *own[0].children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait(timeout=30)


class Jobs:
    """Starts training jobs as a user does, and ends what is left of them.

    Args:
        environment: of the shell.
        folder: for the files of Ray on machines of their own; short, because of its sockets.
    """

    def __init__(self, environment: dict[str, str], folder: str) -> None:
        self._environment = environment
        self._folder = folder
        self._started: list[Job] = []

    def start(self, flags: list[str], run: Path | str, cluster: Any = None, **environment: str) -> Job:
        """A job with these flags, the run's folder, and more of the environment.

        Without a cluster, it is on a machine of its own; with one, the environment goes there as with `ray job submit`.
        """
        storage, name = str(run).rsplit("/", 1)
        command = [sys.executable, "jobs/train_ssv2.py", "--small", *flags, "--storage", storage, "--name", name]
        environment = {"OMP_NUM_THREADS": "1"} | environment
        nodes: Callable[[], list[psutil.Process]] = list
        if cluster is None:
            environment["RAY_TMPDIR"] = self._folder
        else:
            settings = json.dumps({"runtime_env": {"env_vars": environment}})
            environment |= {"RAY_ADDRESS": cluster.address, "RAY_JOB_CONFIG_JSON_ENV_VAR": settings}
            nodes = cluster.processes
        self._started.append(Job(command, self._environment | environment, Path(run), nodes))
        return self._started[-1]

    def end(self) -> None:
        for job in self._started:
            if job.process.poll() is None:
                job.kill()


@pytest.fixture(scope="session")
def jobs(cluster_environment: dict[str, str]) -> Iterator[Jobs]:
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        jobs = Jobs(cluster_environment, folder)
        yield jobs
        jobs.end()


@pytest.fixture
def start_job(jobs: Jobs) -> Iterator[Callable[..., Job]]:
    """`Jobs.start`; no job outlives the test."""
    yield jobs.start
    jobs.end()
