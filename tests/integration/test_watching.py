"""What Prometheus sees of a run: the figures that the board exports, on the metrics port of its node."""

from __future__ import annotations

import re
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
import ray

from cast_ray.training.progress import make_board

EXPORTED_WITHIN_S = 120

ROWS: list[dict[str, Any]] = [
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
    {"kind": "failure", "rank": 1, "reason": "gone"},
    {"kind": "failure", "rank": 0, "reason": "gone"},
    {"kind": "note", "rank": 0, "text": "only shown"},
]


@pytest.fixture
def exported(head) -> Iterator[str]:
    """What Prometheus would read when all rows are there."""
    ray.init(address=head.gcs, log_to_driver=False, configure_logging=False)
    try:
        board = make_board("a run")
        for row in ROWS:
            board.post.remote(row)
        assert ray.get(board.take.remote()) == ROWS  # also keeps the actor until here
        (node,) = ray.nodes()
        url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
        deadline = time.monotonic() + EXPORTED_WITHIN_S
        text = ""
        while "ray_cast_ray_failures" not in text:
            assert time.monotonic() < deadline, text
            time.sleep(1)
            with urllib.request.urlopen(url, timeout=30) as answer:
                text = answer.read().decode()
        ray.kill(board)
        yield text
    finally:
        ray.shutdown()


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
