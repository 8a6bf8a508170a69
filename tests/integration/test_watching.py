"""What Prometheus sees of a run: the figures that the board exports, on the metrics port of its node."""

from __future__ import annotations

import functools
import re
import time
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import ray
import yaml
from programs import installed
from prometheus import expressions, prometheus

from cast_ray.training.progress import make_board, shown
from cast_ray.watching.rows import Row

EXPORTED_WITHIN_S, LATER_S = 120, 25
"""Ray drops what was not set for 20 s."""
Series = list[tuple[dict[str, str], float]]

ROWS: list[dict[str, Any]] = [
    {"kind": "failure", "rank": 1, "reason": "gone"},
    {"kind": "failure", "rank": 0, "reason": "gone"},
    {
        "kind": "step",
        "step": 120,
        "epoch": 1.5,
        "loss": 2.25,
        "learning_rate": 0.0015,
        "clips_per_s": 101.0,
        "data_wait": 0.125,
        "grad_norm": None,
        "bad_clips": 3,
        "seconds_left": 3600.0,
        "workers": {
            "clips_per_s": [50.0, 51.0],
            "data_wait": [0.0, 0.25],
            "memory": [2_000_000_000, 3_000_000_000],
            "gpu_memory": [0, 0],
        },
    },
    {"kind": "epoch", "epoch": 1, "step": 80, "validation": {"loss": 1.5, "label_top1": 0.375}},
    {"kind": "note", "rank": 0, "text": "only shown"},
]


class Taken:
    """Remembers the rows that the driver gets."""

    def __init__(self) -> None:
        self.rows: list[Row] = []

    def show(self, row: Row) -> None:
        self.rows.append(row)

    def close(self) -> None: ...


@pytest.fixture(scope="module")
def exported(head) -> Iterator[str]:
    """What the node's metrics port answers a while after the last row; the run lasts as long as the tests."""
    ray.init(address=head.gcs, log_to_driver=False, configure_logging=False)
    try:
        board, taken = make_board("a run"), Taken()
        with shown(board, [taken]):
            for row in ROWS:
                board.post.remote(row)
            (node,) = ray.nodes()
            url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
            deadline, text = time.monotonic() + EXPORTED_WITHIN_S, ""
            while not re.search(r'ray_cast_ray_validation\{[^}]*run="a run"', text):
                assert time.monotonic() < deadline, text
                time.sleep(1)
                text = fetch(url)
            time.sleep(LATER_S)
            yield fetch(url)
        assert taken.rows == ROWS
        ray.kill(board)
    finally:
        ray.shutdown()


@pytest.fixture(scope="module")
def query(head, exported: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Series]]:
    """Asks a Prometheus that finds the nodes where Ray's dashboard lists them."""
    folder = tmp_path_factory.mktemp("prometheus")
    listed = {"url": f"{head.dashboard}/api/prometheus/sd", "refresh_interval": "5s"}
    scraped = {"job_name": "ray", "scrape_interval": "5s", "http_sd_configs": [listed]}
    config = folder / "prometheus.yml"
    config.write_text(yaml.safe_dump({"scrape_configs": [scraped]}))
    with prometheus(config, folder, installed("prometheus")) as started:
        yield functools.partial(started.query, run="a run")


def test_a_run_is_exported_with_its_name_its_workers_and_its_validation(exported: str) -> None:
    found = {}
    for line in exported.splitlines():
        match = re.match(r"ray_cast_ray_(\w+)\{(.*)\} (\S+)$", line)
        if match:
            labels = dict(re.findall(r'(\w+)="([^"]*)"', match[2]))
            if labels["run"] != "a run":  # a node goes on exporting the runs before, for a while
                continue
            tags = tuple(labels[name] for name in ("worker", "metric") if name in labels)
            found[match[1].removesuffix("_total"), *tags] = float(match[3])
    assert found == {
        ("step",): 120.0,
        ("epoch",): 1.5,
        ("loss",): 2.25,
        ("learning_rate",): 0.0015,
        ("clips_per_s",): 101.0,
        ("data_wait",): 0.125,
        ("bad_clips",): 3.0,
        ("seconds_left",): 3600.0,
        ("worker_clips_per_s", "0"): 50.0,
        ("worker_clips_per_s", "1"): 51.0,
        ("worker_data_wait", "0"): 0.0,
        ("worker_data_wait", "1"): 0.25,
        ("worker_memory", "0"): 2e9,
        ("worker_memory", "1"): 3e9,
        ("worker_gpu_memory", "0"): 0.0,
        ("worker_gpu_memory", "1"): 0.0,
        ("validation", "loss"): 1.5,
        ("validation", "label_top1"): 0.375,
        ("failures",): 2.0,
    }


def test_prometheus_has_what_grafana_asks_for(query: Callable[[str], Series]) -> None:
    """Ray Train's, Ray Data's and the autoscaler's figures need more than a head: only that it understands those."""
    expected = {expression for expression in expressions() if "cast_ray" in expression}
    expected -= {'ray_cast_ray_grad_norm{run=~"$run"}'}  # which the row does not have
    expected |= {"avg(ray_node_cpu_utilization) by (instance)", "sum(ray_object_store_memory) by (Location)"}
    deadline, found = time.monotonic() + EXPORTED_WITHIN_S, set()
    while not found >= expected:
        assert time.monotonic() < deadline, expected - found
        time.sleep(1)
        answers = {expression: query(expression) for expression in expressions()}
        found = {expression for expression, answer in answers.items() if answer}
    of_the_run = {expression: answer for expression, answer in answers.items() if "cast_ray" in expression}
    for answer in of_the_run.values():
        assert {labels["run"] for labels, _ in answer} <= {"a run"}
    ((_, loss),) = of_the_run['ray_cast_ray_loss{run=~"$run"}']
    assert loss == 2.25
    per_worker = of_the_run['ray_cast_ray_worker_clips_per_s{run=~"$run"}']
    assert {labels["worker"]: value for labels, value in per_worker} == {"0": 50.0, "1": 51.0}


def fetch(url: str) -> str:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return answer.read().decode()
