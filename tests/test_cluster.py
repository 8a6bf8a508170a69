"""What a run is told about the size of its cluster, before anything is started."""

from __future__ import annotations

import dataclasses
import io

import pytest
import ray
from rich.console import Console

from cast_ray import cluster
from cast_ray.cluster import check_room
from cast_ray.config import RunConfig
from cast_ray.errors import UserError
from cast_ray.recipes.ssv2 import ssv2


@pytest.fixture(autouse=True)
def has(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Resources of the cluster, to be changed by a test; it does not scale itself."""
    has = {"CPU": 4.0}
    monkeypatch.setattr(ray, "cluster_resources", lambda: has)
    monkeypatch.setattr(cluster, "_can_never_be", lambda bundles: False)
    return has


def config_with(**scale: object) -> RunConfig:
    config = ssv2()
    values = {"num_workers": 4, "use_gpu": False, "cpus_per_worker": 1.0} | scale
    return dataclasses.replace(config, scale=dataclasses.replace(config.scale, **values))


def said(config: RunConfig, *, may_grow: bool) -> str:
    console = Console(file=io.StringIO(), width=300)
    check_room(config, may_grow=may_grow, console=console)
    return console.file.getvalue()


def test_a_machine_with_a_core_for_every_worker_and_one_for_decoding_will_do(has: dict[str, float]) -> None:
    has["CPU"] = 5.0
    assert said(config_with(), may_grow=False) == said(config_with(min_workers=1), may_grow=False) == ""


def test_without_a_core_for_decoding_a_run_is_refused_on_one_machine() -> None:
    with pytest.raises(UserError, match=r"the run needs 5 CPU \(it has 4\) on this machine"):
        check_room(config_with(), may_grow=False, console=Console())


def test_elastic_workers_must_leave_a_core_for_decoding_too() -> None:
    """Two workers and a decoder would fit, but Ray starts four workers where there is room for four."""
    with pytest.raises(UserError, match=r"4 workers fit .* leave 0 of its 4 cores.* --scale.num-workers to 3"):
        check_room(config_with(min_workers=2), may_grow=False, console=Console())
    assert said(config_with(num_workers=3, min_workers=2, cpus_per_worker=1.0), may_grow=False) == ""


def test_only_workers_that_are_not_elastic_are_waited_for_with_a_limit(has: dict[str, float]) -> None:
    has["CPU"] = 1.0
    assert "waiting up to 900 s for the cluster to grow" in said(config_with(), may_grow=True)
    assert "waiting for the cluster to grow" in said(config_with(min_workers=2), may_grow=True)


def test_more_than_the_autoscaler_can_ever_start_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "_can_never_be", lambda bundles: len(bundles) > 8)
    with pytest.raises(UserError, match="more than the cluster can ever have"):
        said(ssv2(), may_grow=True)
