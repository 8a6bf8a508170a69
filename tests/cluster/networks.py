"""How a drill gets two machines with a network between them: network namespaces of this one, joined by a switch.

Each has its own addresses, ports, loopback, host name and /etc/hosts, the latter as Debian writes it: the machine's own
name stands for 127.0.1.1. Files, cores and memory are shared.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

__all__ = ["Machine", "Network", "check_possible", "network"]

ENDING_S = 10
ENTER = 'hostname "$0"; mount --bind "$1" /etc/hosts; shift; exec "$@"'


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A network namespace."""

    name: str
    """Of the host."""
    address: str
    namespace: str
    hosts: str
    """Path of what is /etc/hosts there."""

    def command(self, *words: str) -> list[str]:
        """A command that runs `words` on this machine, as a process of the same number."""
        enter = ["ip", "netns", "exec", self.namespace, "unshare", "--uts", "--mount"]
        return [*enter, "sh", "-c", ENTER, self.name, self.hosts, *words]

    def processes(self) -> list[psutil.Process]:
        found = []
        for number in _ip("netns", "pids", self.namespace).split():
            with contextlib.suppress(psutil.NoSuchProcess):
                found.append(psutil.Process(int(number)))
        return found

    def traffic(self) -> tuple[int, int]:
        """Bytes that its network interface has received and sent."""
        (link,) = json.loads(_ip("-netns", self.namespace, "-json", "-stats", "link", "show", "eth0"))
        return link["stats64"]["rx"]["bytes"], link["stats64"]["tx"]["bytes"]


@dataclass(frozen=True, kw_only=True)
class Network:
    """Two machines and the switch between them."""

    machines: tuple[Machine, Machine]
    switch: str
    """Its namespace."""

    def to_json(self) -> str:
        """For a process on one of its machines."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Network:
        fields = json.loads(text)
        first, second = (Machine(**machine) for machine in fields["machines"])
        return cls(machines=(first, second), switch=fields["switch"])

    def pull(self, machine: Machine) -> None:
        """Pull the machine's cable out of the switch: nobody is told that connections have ended."""
        _ip("-netns", self.switch, "link", "set", machine.name, "down")

    def plug(self, machine: Machine) -> None:
        _ip("-netns", self.switch, "link", "set", machine.name, "up")


def check_possible() -> None:
    """Ends the program, in words, where namespaces cannot be made."""
    missing = [name for name in ("ip", "unshare", "mount", "hostname") if shutil.which(name) is None]
    if os.geteuid() != 0 or missing:
        sys.exit(
            "error: networks are made by root and with `ip` (Debian: apt install iproute2): "
            + (f"{', '.join(missing)} not found" if missing else "this is not root")
        )
    done = subprocess.run(["ip", "netns", "add", _name("try")], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"error: no network namespaces here (a container without the right to?): {done.stderr.strip()}")
    _ip("netns", "delete", _name("try"))


@contextlib.contextmanager
def network() -> Iterator[Network]:
    """Two machines, 10.77.0.1 and 10.77.0.2; afterwards they are gone, with all processes on them."""
    made = []
    with tempfile.TemporaryDirectory(prefix="networks-") as folder:
        addresses = {"node-1": "10.77.0.1", "node-2": "10.77.0.2"}
        machines = []
        for name, address in addresses.items():
            others = [f"{far} {other}" for other, far in addresses.items() if other != name]
            hosts = Path(folder) / name
            hosts.write_text("\n".join(["127.0.0.1 localhost", f"127.0.1.1 {name}", *others, ""]))
            machines.append(Machine(name=name, address=address, namespace=_name(name), hosts=str(hosts)))
        switch = _name("switch")
        try:
            for namespace in (switch, *(machine.namespace for machine in machines)):
                _ip("netns", "add", namespace)
                made.append(namespace)
            _ip("-netns", switch, "link", "add", "bridge", "type", "bridge")
            _ip("-netns", switch, "link", "set", "bridge", "up")
            for machine in machines:
                _connect(machine, switch)
            yield Network(machines=(machines[0], machines[1]), switch=switch)
        finally:
            _end(process for machine in machines if machine.namespace in made for process in machine.processes())
            for namespace in made:
                _ip("netns", "delete", namespace)


def _connect(machine: Machine, switch: str) -> None:
    """The interface eth0 on the machine, and a port of the switch that has the machine's name."""
    peer = ["peer", "name", machine.name, "netns", switch]
    _ip("link", "add", "eth0", "netns", machine.namespace, "type", "veth", *peer)
    _ip("-netns", switch, "link", "set", machine.name, "master", "bridge", "up")
    _ip("-netns", machine.namespace, "address", "add", f"{machine.address}/24", "dev", "eth0")
    for interface in ("lo", "eth0"):
        _ip("-netns", machine.namespace, "link", "set", interface, "up")


def _end(processes: Iterator[psutil.Process]) -> None:
    left = list(processes)
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    _, alive = psutil.wait_procs(left, timeout=ENDING_S)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=ENDING_S)


def _name(what: str) -> str:
    return f"cast-ray-{os.getpid()}-{what}"


def _ip(*words: str) -> str:
    return subprocess.run(["ip", *words], capture_output=True, text=True, check=True).stdout
