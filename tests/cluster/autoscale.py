"""Does a cluster with the node types of cluster/aws.yaml grow for a job and shrink after it? `make autoscale` shows it.

Ray's provider of fake nodes starts a raylet of its own for each machine, on this one; GPUs are numbers that nobody
checks. Everything else is what runs in a cloud: autoscaler v2, token authentication, submitted jobs, two real training
workers of which each takes the cores of a whole node.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import yaml
from one_head import REPOSITORY, Clock, Head, nodes, run, start_head
from ports import free_ports
from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID, FAKE_HEAD_NODE_TYPE

from cast_ray.data.synthetic import write_dataset

CORES = 24
"""Cores of a node in aws.yaml for which one here stands; Ray starts processes in advance for each."""
DECODE_NODES, IDLE_S, STORE = 2, 40, 120 * 2**20
"""Instead of the 8 nodes, 300 s and 30 % of the memory there."""
JOB_TIMEOUT_S, QUIET_TIMEOUT_S = 900, 240


def fake_cluster(gcs: str) -> dict[str, Any]:
    """cluster/aws.yaml with machines that are processes here: same types, same GPUs, fewer cores, less patience."""
    real = yaml.safe_load((REPOSITORY / "cluster" / "aws.yaml").read_text())
    types = {}
    for name, node in real["available_node_types"].items():
        resources = {"CPU": node["resources"]["CPU"] // CORES, "object_store_memory": STORE}
        resources |= {key: value for key, value in node["resources"].items() if key != "CPU"}
        types[FAKE_HEAD_NODE_TYPE if name == real["head_node_type"] else name] = {
            "resources": resources,
            "node_config": {},
            "min_workers": node.get("min_workers", 0),
            "max_workers": min(node.get("max_workers", 0), DECODE_NODES),
        } | ({"idle_timeout_s": IDLE_S} if "idle_timeout_s" in node else {})
    return {
        "cluster_name": real["cluster_name"],
        "max_workers": real["max_workers"],
        "upscaling_speed": real["upscaling_speed"],
        "idle_timeout_minutes": IDLE_S / 60,
        "provider": {
            # By its class, because the defaults of type fake_multinode are not in Ray's wheel.
            "type": "external",
            "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
            "gcs_address": gcs,
            "head_node_id": FAKE_HEAD_NODE_ID,
            "launch_multiple": True,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
        },
        "head_node_type": FAKE_HEAD_NODE_TYPE,
        "available_node_types": types,
        # Without an updater nobody runs commands on a node, but these must be there.
        **{f"{part}setup_commands": [] for part in ("", "head_", "worker_")},
        **{f"{part}_start_ray_commands": [] for part in ("head", "worker")},
        "initialization_commands": [],
        "file_mounts": {},
        "cluster_synced_files": [],
        "auth": {},
    }


class Watch(threading.Thread):
    """Says which nodes come and go."""

    def __init__(self, head: Head, clock: Clock) -> None:
        super().__init__(daemon=True)
        self._head, self._clock, self._ended = head, clock, threading.Event()
        self.now: dict[str, str] = {}
        self.seen: dict[str, str] = {}
        self.most_gpu = 0

    def run(self) -> None:
        while not self._ended.wait(1):
            alive = {node["node_id"]: _kind(node) for node in nodes(self._head) if node["state"] == "ALIVE"}
            for node in alive.keys() - self.now.keys():
                self._clock.say(f"  + {alive[node]} {node[-2:]}: {_counts(alive)}")
            for node in self.now.keys() - alive.keys():
                self._clock.say(f"  - {self.now[node]} {node[-2:]}: {_counts(alive)}")
            self.now, self.seen = alive, self.seen | alive
            self.most_gpu = max(self.most_gpu, list(alive.values()).count("gpu"))

    def end(self) -> None:
        self._ended.set()
        self.join()

    def wait_until_alone(self) -> None:
        """Wait until the head is the only node."""
        deadline = time.monotonic() + QUIET_TIMEOUT_S
        while set(self.now.values()) != {"head"}:
            assert time.monotonic() < deadline, f"idle nodes stayed: {_counts(self.now)}"
            time.sleep(0.5)


def _kind(node: dict[str, Any]) -> str:
    return "head" if node["is_head_node"] else "gpu" if "GPU" in node["resources_total"] else "decode"


def _counts(nodes: dict[str, str]) -> str:
    kinds = list(nodes.values())
    return f"{kinds.count('gpu')} gpu, {kinds.count('decode')} decode"


def submit(head: Head, clock: Clock, *entrypoint: str) -> tuple[int, str]:
    """A job, followed to its end; says what of its output a user would look for."""
    command = ["ray", "job", "submit", "--address", head.dashboard, "--", *entrypoint]
    status, output = run(command, head, timeout_s=JOB_TIMEOUT_S)
    for line in dict.fromkeys(output.splitlines()):  # of a failed job Ray shows the end twice
        if line.strip().startswith(KEPT):
            clock.say(f"    | {line}")
    return status, output


KEPT = ("workers per node", "data:", "train:", "epoch ", "error", "waiting", "evaluate:", "checkpoint:")


def drill(head: Head, clock: Clock, watch: Watch) -> None:
    training = ["python", "jobs/train_ssv2.py", "--small"]
    clips = write_dataset(head.folder / "clips", layout="ssv2", train_clips=64, validation_clips=16)
    training += ["--data", str(clips.videos), "--annotations", str(clips.annotations), "--optim.epochs", "2"]
    training += ["--storage", str(head.folder / "runs"), "--name", "scaled", "--log-every", "4"]
    training += ["--scale.start-timeout-s", "900"]

    clock.say("a job for 32 GPUs, where two nodes of 8 are allowed")
    impossible = ["--scale.use-gpu", "--scale.num-workers", "32", "--scale.cpus-per-worker", "0.25"]
    impossible += ["--batch.micro-batch", "1"]
    status, output = submit(head, clock, *training, *impossible)
    assert status != 0, output
    assert "32 GPU (it has 0), more than the cluster can ever have" in " ".join(output.split()), output
    assert not any(kind == "gpu" for kind in watch.seen.values()), "GPU nodes came for it nevertheless"

    clock.say("a job that asks for sixteen places of one GPU")
    status, output = submit(head, clock, "python", "tests/cluster/place_workers.py")
    assert status == 0, output
    assert "workers per node: [8, 8]" in output, output
    watch.wait_until_alone()

    clock.say("a training job: two workers, each with all cores of a node; decoding has nowhere to go but CPU nodes")
    cores, watch.most_gpu = 192 // CORES, 0
    status, output = submit(head, clock, *training, "--scale.num-workers", "2", "--scale.cpus-per-worker", str(cores))
    assert status == 0, output
    assert watch.most_gpu == 2, "the two workers did not get a node each"
    watch.wait_until_alone()
    kinds = list(watch.seen.values())
    assert kinds.count("gpu") >= 4, "two for the places and two for the training"
    assert kinds.count("decode") >= 1
    clock.say(f"all gone; {kinds.count('gpu')} gpu and {kinds.count('decode')} decode nodes came and went")


def main() -> None:
    (port,) = free_ports(1)
    variables = {
        "RAY_FAKE_CLUSTER": "1",
        "RAY_enable_autoscaler_v2": "1",
        "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID,
        "RAY_NODE_TYPE_NAME": FAKE_HEAD_NODE_TYPE,
    }
    config = Path(f"/tmp/cast_ray_autoscale_{port}.yaml")
    config.write_text(yaml.safe_dump(fake_cluster(f"127.0.0.1:{port}")))
    flags = [f"--autoscaling-config={config}", "--num-cpus=0", "--num-gpus=0", f"--object-store-memory={STORE}"]
    clock = Clock()
    try:
        with start_head(flags, variables, port) as head:
            watch = Watch(head, clock)
            watch.start()
            clock.say("a head without workers")
            try:
                drill(head, clock, watch)
            finally:
                watch.end()
    finally:
        config.unlink()


if __name__ == "__main__":
    main()
