"""How a test asks a real Prometheus, and what our Grafana dashboard would ask it."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ports import free_ports

__all__ = ["Prometheus", "expressions", "prometheus"]

START_TIMEOUT_S, ENDING_S = 60, 30
DASHBOARD = Path(__file__).parents[2] / "cluster" / "grafana" / "cast_ray.json"


class Prometheus:
    """One that is running.

    Args:
        address: http://host:port
    """

    def __init__(self, address: str) -> None:
        self._address = address

    def query(self, expression: str, *, run: str) -> list[tuple[dict[str, str], float]]:
        """The labels and the latest value of every series of an expression of the dashboard, in which a run is chosen.

        Raises:
            urllib.error.HTTPError: Prometheus does not understand it.
        """
        words = urllib.parse.urlencode({"query": expression.replace("$run", run)})
        return [(each["metric"], float(each["value"][1])) for each in self._get(f"query?{words}")["result"]]

    def names(self) -> set[str]:
        """Of all metrics."""
        return set(self._get("label/__name__/values"))

    def _get(self, path: str) -> Any:
        with urllib.request.urlopen(f"{self._address}/api/v1/{path}", timeout=30) as answer:
            return json.load(answer)["data"]


@contextlib.contextmanager
def prometheus(config: Path, folder: Path, program: str = "prometheus") -> Iterator[Prometheus]:
    """Start one with a configuration file and a folder for its data, and end it afterwards."""
    (port,) = free_ports(1)
    command = [program, f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}"]
    log = folder / "prometheus.log"
    with log.open("w") as output:
        process = subprocess.Popen([*command, f"--web.listen-address=127.0.0.1:{port}"], stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        started = Prometheus(f"http://127.0.0.1:{port}")
        while True:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            with contextlib.suppress(OSError):
                started.names()
                break
            time.sleep(0.2)
        yield started
    finally:
        process.terminate()
        process.wait(timeout=ENDING_S)


def expressions() -> dict[str, str]:
    """What the panels of our dashboard ask for, with their titles."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return {target["expr"]: panel["title"] for panel in panels for target in panel.get("targets", ())}
