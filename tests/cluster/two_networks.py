"""Does a run over two machines survive that one of them is cut off? `make two-networks` shows it, as root.

Two raylets in network namespaces that a switch joins. Nothing is killed: a cable is pulled in the middle of an epoch,
so that connections stay open and nobody answers, and later it is plugged in again.
"""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import psutil
import tenacity
import torch
from networks import Machine, Network, check_possible, network
from one_head import REPOSITORY, Clock, Head, fetch, nodes, start_head, stop
from ports import free_ports
from safetensors.torch import load_file

from cast_ray.data.synthetic import write_dataset
from cast_ray.training.checkpoint import read_history, read_state

CPUS, STORE = 3, 200 * 2**20
RESOURCES = [f"--num-cpus={CPUS}", "--num-gpus=0", f"--object-store-memory={STORE}"]
"""Of each machine: room for one worker, and for a decoder beside it."""
STARTS = 4
"""Ray gives a node 15 s to start its agents, which a busy machine may not keep."""
PATIENT = tenacity.retry(
    retry=tenacity.retry_if_exception_type(OSError), stop=tenacity.stop_after_delay(30), reraise=True
)
"""For questions to the dashboard, which may be too busy to answer."""
STEPS_PER_EPOCH, EPOCHS, CUT_AFTER = 48, 4, 9
TIMEOUT_S, ENDING_S = 900, 90
TOLERANCE = 2e-4
"""Largest difference of a weight; as in drills/test_nodes.py, which says why there is one."""
KEPT = ("data:", "train:", "epoch ", "worker ", "error", "evaluate:", "checkpoint:")
STEP = re.compile(r"^  epoch +[\d.]+  step +(\d+) ", re.MULTILINE)


ONE, TWO = "1 of up to 2 workers train", "2 of up to 2 workers train"


class Job:
    """A training run on the head's machine, and what it prints."""

    def __init__(self, head: Head, name: str, flags: list[str]) -> None:
        self.folder = head.folder / "runs" / name
        self._log = head.folder / f"{name}.log"
        command = [sys.executable, "jobs/train_ssv2.py", "--small", *flags]
        command += ["--storage", str(self.folder.parent), "--name", name]
        environment = head.environment | {"RAY_ADDRESS": head.gcs}
        with self._log.open("w") as log:
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=REPOSITORY)

    @property
    def output(self) -> str:
        return self._log.read_text()

    @property
    def steps(self) -> list[int]:
        return [int(step) for step in STEP.findall(self.output)]

    def steps_since(self, text: str) -> list[int]:
        """Those after the last time that it has printed `text`."""
        _, found, after = self.output.rpartition(text)
        return [int(step) for step in STEP.findall(after)] if found else []

    @property
    def checkpoint(self) -> Path:
        """The latest."""
        return sorted(path.parent for path in self.folder.glob("checkpoint_*/state.json"))[-1]

    def wait(self, conditions: dict[str, Callable[[], bool]]) -> dict[str, float]:
        """Wait until each condition has held once; seconds after which it did."""
        begun, came = time.monotonic(), {}
        while len(came) < len(conditions):
            for what, holds in conditions.items():
                if what not in came and holds():
                    came[what] = time.monotonic() - begun
            assert self.process.poll() is None, f"ended before {conditions.keys() - came.keys()}:\n{self.output}"
            assert time.monotonic() - begun < TIMEOUT_S, f"no {conditions.keys() - came.keys()}:\n{self.output}"
            time.sleep(0.2)
        return came

    def says(self, text: str, times: int = 1) -> Callable[[], bool]:
        return lambda: self.output.count(text) >= times

    def finish(self) -> None:
        self.process.wait(timeout=TIMEOUT_S)
        assert self.process.returncode == 0, self.output


@contextlib.contextmanager
def head_node(machine: Machine) -> Iterator[Head]:
    """The head, once it is a node too: its dashboard answers before that, and if that fails."""
    (port,) = free_ports(1)
    with start_head(RESOURCES, {}, port, machine.address) as head:
        while machine.address not in alive(head):
            assert head.process.status() != psutil.STATUS_ZOMBIE, "the head is no node"
            time.sleep(0.5)
        yield head


@contextlib.contextmanager
def node(machine: Machine, head: Head, name: str) -> Iterator[None]:
    """Ray on another machine, which is a node then."""
    command = ["ray", "start", "--block", f"--address={head.gcs}", f"--node-ip-address={machine.address}"]
    command += [*RESOURCES, f"--temp-dir={head.folder / name}"]
    with (head.folder / f"{name}.log").open("w") as log:
        started = subprocess.Popen(
            machine.command(*command), env=head.environment, stdout=log, stderr=log, cwd=REPOSITORY
        )
    process = psutil.Process(started.pid)
    try:
        while machine.address not in alive(head):
            assert started.poll() is None, f"no node:\n{Path(log.name).read_text()}"
            time.sleep(0.5)
        yield
    finally:
        stop(process)
        started.wait(timeout=30)


@contextlib.contextmanager
def tried(start: Callable[[], AbstractContextManager[Any]]) -> Iterator[Any]:
    """What `start` enters, at one of some attempts."""
    with contextlib.ExitStack() as stack:
        for attempt in range(STARTS):
            try:
                entered = stack.enter_context(start())
                break
            except (AssertionError, OSError):
                if attempt == STARTS - 1:
                    raise
        yield entered


@PATIENT
def alive(head: Head) -> set[str]:
    """Addresses of the nodes that Ray takes for alive."""
    return {each["node_ip"] for each in nodes(head) if each["state"] == "ALIVE"}


@PATIENT
def places(head: Head) -> dict[str, int]:
    """Address and process of the workers that were started last, by rank."""
    runs = json.loads(fetch(head, f"{head.dashboard}/api/train/v2/runs/v1"))["train_runs"]
    attempts = [attempt for run in runs for attempt in run["attempts"]]
    workers = max(attempts, key=lambda attempt: attempt["start_time_ns"])["workers"]
    return {worker["node_ip"]: worker["pid"] for worker in sorted(workers, key=lambda each: each["world_rank"])}


def connections(pid: int, far: str) -> int:
    """Open connections of a process on this machine with another one."""
    own = psutil.Process(pid).net_connections("tcp")
    return sum(1 for each in own if each.raddr and each.raddr.ip == far and each.status == psutil.CONN_ESTABLISHED)


def check_traffic(job: Job, head: Head, clock: Clock, net: Network) -> int:
    """Watch the second to the last step before the cut: what the workers say goes over the network.

    Returns:
        The process of the worker on the second machine.
    """
    near, far = net.machines
    job.wait({"the second step": lambda: len(job.steps) > 1})
    first, before = len(job.steps), far.traffic()
    workers = places(head)
    clock.say(f"    workers, by rank: {', '.join(f'{address} (process {pid})' for address, pid in workers.items())}")
    assert workers.keys() == {near.address, far.address}, workers
    between = connections(workers[near.address], far.address)
    clock.say(f"    connections of the worker on {near.name} with {far.name}: {between}")
    assert between > 0
    job.wait({"the last step before": lambda: CUT_AFTER in job.steps})
    steps = len(job.steps) - first
    received, sent = (after - earlier for after, earlier in zip(far.traffic(), before, strict=True))
    weights = sum(weight.numel() * 4 for weight in load_file(job.checkpoint / "weights.safetensors").values())
    clock.say(f"    {far.name} has received {received / 1e6:.0f} MB and sent {sent / 1e6:.0f} MB in {steps} steps")
    clock.say(f"    weights, and so gradients, have {weights / 1e6:.1f} MB")
    assert min(received, sent) > steps * weights / 2, "the gradients cannot have gone over the network"
    return workers[far.address]


def train_cut_off(job: Job, head: Head, clock: Clock, net: Network) -> None:
    """Until one worker trains."""
    far = net.machines[1]
    lost = psutil.Process(check_traffic(job, head, clock, net))
    net.pull(far)
    silent = far.traffic()
    clock.say(f"    step {job.steps[-1]} of {STEPS_PER_EPOCH} is done; the cable of {far.name} is pulled")
    time.sleep(1)
    assert lost.is_running(), "it was killed instead"
    done = job.steps[-1]  # what was said before the cut is shown by now
    came = job.wait(
        {
            "Ray takes the machine for dead": lambda: far.address not in alive(head),
            "a worker's failure is reported": job.says(" failed  "),
            "one worker is ready": job.says(ONE),
            "its first step is done": lambda: len(job.steps_since(ONE)) > 0,
        }
    )
    for what, seconds in came.items():
        clock.say(f"    {seconds + 1:5.1f} s after it: {what}")
    clock.say(f"    | {next(line for line in job.output.splitlines() if ' failed  ' in line).strip()}")
    assert far.traffic()[0] == silent[0], "something came through"
    resumed = job.steps_since(ONE)[0]
    clock.say(f"    one worker goes on with step {resumed}")
    assert 1 < resumed <= done + 1, "not from the last checkpoint before the cut"


def train_joined_again(job: Job, head: Head, clock: Clock, net: Network) -> None:
    """Until the end of the run, with two workers again."""
    near, far = net.machines
    came = job.wait({"two workers are ready": job.says(TWO, times=2)})
    came |= job.wait({"their first step is done": lambda: len(job.steps_since(TWO)) > 0})
    clock.say("    " + "; ".join(f"{what}: {seconds:.0f} s" for what, seconds in came.items()))
    assert places(head).keys() == {near.address, far.address}
    job.finish()
    for line in job.output.splitlines():
        if line.strip().startswith(KEPT) and not STEP.match(line):
            clock.say(f"    | {line.strip()}")
    time.sleep(5)
    left = [each for machine in net.machines for each in machine.processes() if "RayTrainWorker" in each.name()]
    assert not left, left


def compare(clock: Clock, cut_off: Job, undisturbed: Job) -> None:
    """Every global batch counted once, and the same weights."""
    assert "Traceback" not in cut_off.output
    for job in (cut_off, undisturbed):
        assert read_state(job.checkpoint).position.epoch == EPOCHS
        steps = [row["step"] for row in read_history(job.checkpoint) if row["kind"] == "step"]
        assert steps == list(range(1, EPOCHS * STEPS_PER_EPOCH + 1))
    clock.say(f"    its history has each of the {len(steps)} steps once; {len(cut_off.steps)} were done")
    losses = [
        torch.tensor([row["loss"] for row in read_history(job.checkpoint) if row["kind"] == "step"])
        for job in (cut_off, undisturbed)
    ]
    torch.testing.assert_close(*losses, rtol=1e-3, atol=1e-4)
    weights, expected = (load_file(job.checkpoint / "weights.safetensors") for job in (cut_off, undisturbed))
    assert weights.keys() == expected.keys()
    difference = max(float((weights[name] - expected[name]).abs().max()) for name in expected)
    clock.say(f"    largest difference of a weight from the undisturbed run: {difference:.1e}")
    assert difference < TOLERANCE
    folders = set(cut_off.folder.glob("checkpoint_*/"))
    assert {path.parent for path in cut_off.folder.glob("checkpoint_*/state.json")} == folders, "half a checkpoint"


def drill(clock: Clock, net: Network) -> None:
    """On the first machine."""
    near, far = net.machines
    with tried(lambda: head_node(near)) as head:
        clips = write_dataset(
            head.folder / "clips", layout="ssv2", train_clips=8 * STEPS_PER_EPOCH - 3, validation_clips=8
        )
        flags = ["--data", str(clips.videos), "--annotations", str(clips.annotations), "--data.clips-per-task", "2"]
        flags += ["--batch.global-batch", "8", "--batch.micro-batch", "2", "--optim.epochs", str(EPOCHS)]
        flags += ["--scale.num-workers", "2", "--scale.min-workers", "1", "--scale.cpus-per-worker", "1.9"]
        flags += ["--scale.resize-every-s", "5", "--scale.start-timeout-s", "600", "--scale.zero-stage", "1"]
        flags += ["--log-every", "1", "--checkpoint-every", "2"]
        flags += ["--test.temporal-views", "1", "--test.spatial-crops", "1"]
        with tried(lambda: node(far, head, "node")):
            clock.say(f"two nodes: {near.name} {near.address} with the head, {far.name} {far.address}")
            clock.say("a run with a worker on each")
            job = Job(head, "cut-off", flags)
            train_cut_off(job, head, clock, net)
            ending = far.processes()
            net.plug(far)
            begun = time.monotonic()
            _, left = psutil.wait_procs(ending, timeout=TIMEOUT_S)
            assert not left, left
            waited = time.monotonic() - begun
            clock.say(f"    the cable is plugged in again; all of Ray on {far.name} ends by itself in {waited:.0f} s")
        with tried(lambda: node(far, head, "again")):
            clock.say(f"    {far.name} is a node again")
            train_joined_again(job, head, clock, net)
            clock.say("the same run, and nothing happens to it")
            undisturbed = Job(head, "undisturbed", flags)
            undisturbed.finish()
        compare(clock, job, undisturbed)


def main() -> None:
    check_possible()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    with network() as net:
        command = net.machines[0].command(sys.executable, __file__, net.to_json())
        inside = subprocess.Popen(command, cwd=REPOSITORY)
        try:
            status = inside.wait()
        finally:
            if inside.poll() is None:  # it puts away what it has made itself
                inside.terminate()
                inside.wait(timeout=ENDING_S)
    sys.exit(status)


if __name__ == "__main__":
    if len(sys.argv) > 1:  # on the first machine
        drill(Clock(), Network.from_json(sys.argv[1]))
    else:
        main()
