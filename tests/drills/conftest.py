"""A Ray cluster of simulated nodes on this machine for all drills, and the table of what became of them."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from ports import free_ports

from cast_ray.data.synthetic import write_dataset
from cast_ray.training.checkpoint import read_history, read_state

STORE = 100 * 2**20
STEPS_PER_EPOCH, EPOCHS = 8, 3
TIMES = ("clips_per_s", "data_wait", "seconds_left")
"""What differs between two runs that do the same."""
ENDING_S = 180
KEPT = ("AutoscalingCoordinator", "TrainStateActor", "StatsActor", "ActorLocationTracker")
"""What Ray's libraries start once and keep as long as the cluster lives."""
CPUS = 3
PLACED = ("--scale.cpus-per-worker", "1.9", "--data.clips-per-task", "2")
"""One worker per node, with one thread, and with room for a decoder beside it."""
SHORT = ("--test.temporal-views", "1", "--test.spatial-crops", "1", "--log-every", "1", "--checkpoint-every", "2")
Outcome = tuple[bytes, bytes, list[dict]]
"""Weights and optimiser of a finished run, byte by byte, and its history without times."""
ROWS = pytest.StashKey[list]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.ray)
            item.add_marker(pytest.mark.timeout(3600))


class SimulatedCluster:
    """A head without CPUs of its own, and nodes that have each an address of this machine's loopback.

    Args:
        folder: for the files of Ray.
        port: of the dashboard, whose default may belong to another cluster here.
    """

    def __init__(self, folder: str, port: int) -> None:
        from ray.cluster_utils import Cluster  # Ray reads the environment when it is imported

        self._options = {"object_store_memory": STORE, "temp_dir": folder}
        head = {"num_cpus": 0, "dashboard_port": port, **self._options}
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        self._addresses = (f"127.0.0.{number}" for number in range(2, 255))

    @property
    def address(self) -> str:
        """For RAY_ADDRESS."""
        return self._cluster.address

    @property
    def dashboard(self) -> str:
        return self._cluster.webui_url

    def add_node(self, *, cpus: int, gpus: int = 0) -> None:
        """A node that Ray takes for another machine."""
        address = next(self._addresses)
        self._cluster.add_node(num_cpus=cpus, num_gpus=gpus, node_ip_address=address, **self._options)

    def processes(self) -> list[psutil.Process]:
        """Those that start all others of each node."""
        nodes = self._cluster.list_all_nodes()
        infos = [info for node in nodes for started in node.all_processes.values() for info in started]
        return [psutil.Process(info.process.pid) for info in infos if info.process.poll() is None]

    def close(self) -> None:
        self._cluster.shutdown()


@pytest.fixture(scope="session")
def new_cluster(cluster_environment: dict[str, str]) -> Iterator[Callable[[], SimulatedCluster]]:
    """Starts a head without nodes."""
    started = []
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:  # short: sockets

        def start() -> SimulatedCluster:
            os.environ |= cluster_environment  # for the processes of Ray
            started.append(SimulatedCluster(folder, *free_ports(1)))
            return started[-1]

        yield start
        for cluster in started:
            cluster.close()


@pytest.fixture(scope="session")
def cluster(new_cluster: Callable[[], SimulatedCluster]) -> SimulatedCluster:
    """Two nodes beside the head: a worker and a decoder have room on each."""
    cluster = new_cluster()
    for _ in range(2):
        cluster.add_node(cpus=CPUS)
    return cluster


@pytest.fixture(scope="session")
def flags(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Of a job with one worker per node, whose data has a training clip that cannot be read."""
    folder = tmp_path_factory.mktemp("ssv2") / "clips"
    clips = write_dataset(folder, layout="ssv2", train_clips=8 * STEPS_PER_EPOCH, validation_clips=8)
    shutil.copy(Path(__file__).parents[1] / "clips" / "corrupted.mp4", clips.videos / "5.mp4")
    flags = ["--data", str(clips.videos), "--annotations", str(clips.annotations), "--data.max-unreadable", "0.05"]
    flags += ["--batch.global-batch", "8", "--batch.micro-batch", "2", "--optim.epochs", str(EPOCHS)]
    return [*flags, *PLACED, *SHORT]


def outcome_of(run: Path) -> Outcome:
    """What a finished run has left; fails if a part of a checkpoint is there."""
    folders = sorted(path for path in run.glob("checkpoint_*") if path.is_dir())
    assert all((folder / "state.json").is_file() for folder in folders)
    assert not list(run.rglob("*.part"))
    assert read_state(folders[-1]).position.epoch == EPOCHS
    rows = [{key: value for key, value in row.items() if key not in TIMES} for row in read_history(folders[-1])]
    return (
        (folders[-1] / "weights.safetensors").read_bytes(),
        (folders[-1] / "optimizer.safetensors").read_bytes(),
        rows,
    )


@pytest.fixture(scope="session")
def undisturbed(flags, cluster, jobs, tmp_path_factory) -> Outcome:
    """The outcome of the job when nothing happens."""
    job = jobs.start(flags, tmp_path_factory.mktemp("storage") / "undisturbed", cluster)
    output = job.wait()
    assert job.process.returncode == 0, output
    return outcome_of(job.run)


@pytest.fixture
def train(flags, cluster, faults, start_job, tmp_path) -> Callable[..., Any]:
    """Starts that job, or goes on with it, with more flags; faults act on it."""

    def train(*more: str, run: str = str(tmp_path / "run"), **environment: str) -> Any:
        return start_job([*flags, *more], run, cluster, **faults.environment, **environment)

    return train


class Drill:
    """What was done to a run, what became of it, and how long it took."""

    def __init__(self) -> None:
        self.injected, self.result, self.seconds = "", "", 0.0
        self._since = 0.0

    def inject(self, what: str) -> None:
        """Called when it happens."""
        self.injected, self._since = what, time.monotonic()

    def recovered(self) -> None:
        """Called when the run does again what it did before, or has ended."""
        self.seconds = time.monotonic() - self._since


@pytest.fixture
def drill(request: pytest.FixtureRequest) -> Iterator[Drill]:
    """Its row of the table; without a result, as after a failure, there is none."""
    drill = Drill()
    yield drill
    if drill.result:
        rows = request.config.stash.setdefault(ROWS, [])
        rows.append((drill.injected, drill.result, f"{drill.seconds:.0f}", request.node.name.partition("[")[0]))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    for row in config.stash.get(ROWS, []):
        terminalreporter.write_line("| " + " | ".join(row) + " |")


@pytest.fixture(scope="session")
def check_ended() -> Callable[[dict[psutil.Process, str]], None]:
    """Fails if processes of a job, with their titles, outlive it."""

    def check_ended(processes: dict[psutil.Process, str]) -> None:
        own = [process for process, title in processes.items() if not any(name in title for name in KEPT)]
        _, alive = psutil.wait_procs(own, timeout=ENDING_S)
        assert not alive, [processes[process] for process in alive]

    return check_ended


@pytest.fixture(scope="session")
def ends_well(check_ended: Callable) -> Callable[[Any], str]:
    """Waits for the end of a job, with status 0 and all that it has running now: what the user saw."""

    def ends_well(job: Any) -> str:
        processes = job.processes()
        output = job.wait()
        assert job.process.returncode == 0, output
        check_ended(processes)
        return output

    return ends_well


@pytest.fixture(scope="session")
def ends_undisturbed(ends_well: Callable, undisturbed: Outcome) -> Callable[[Any], str]:
    """The same, and it has left what the undisturbed run has left."""

    def ends_undisturbed(job: Any) -> str:
        output = ends_well(job)
        assert outcome_of(job.run) == undisturbed
        return output

    return ends_undisturbed


@pytest.fixture(scope="session")
def outcome() -> Callable[[Path], Outcome]:
    """What a finished run has left; fails if a part of a checkpoint is there."""
    return outcome_of
