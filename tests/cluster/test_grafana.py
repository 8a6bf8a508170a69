"""The Grafana dashboard: every metric that it asks for is one that was seen at the metrics ports of a real run."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from prometheus import expressions

from cast_ray.watching.telemetry import OF_STEP, OF_WORKER

DASHBOARD = json.loads((Path(__file__).parents[2] / "cluster" / "grafana" / "cast_ray.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
SEEN = set(Path(__file__).with_name("exported_metrics.txt").read_text().split())
"""Names at ports that Prometheus asks: of a cluster while a job trained, and of a process with one row of each kind."""
NOT_SEEN = {"ray_node_gpus_utilization", "ray_node_gram_used"}
"""There is no GPU where that was done. Names as in Ray's own dashboards."""
OURS = {f"ray_cast_ray_{name}" for name in OF_STEP} | {f"ray_cast_ray_worker_{name}" for name in OF_WORKER}


def asked(expression: str) -> set[str]:
    return set(re.findall(r"\b(?:ray|autoscaler)_\w+(?=\s*[\[{) ]|$)", re.sub(r"by \([^)]*\)", "", expression)))


EXPRESSIONS = list(expressions())


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_every_metric_is_exported(expression: str) -> None:
    names = asked(expression)
    assert names
    assert names <= SEEN | NOT_SEEN


def test_the_exceptions_are_still_exceptions() -> None:
    assert not NOT_SEEN & SEEN


def test_all_of_our_figures_that_say_whether_a_run_goes_well_are_shown() -> None:
    shown = set().union(*map(asked, EXPRESSIONS))
    assert OURS - shown <= {"ray_cast_ray_step", "ray_cast_ray_worker_memory", "ray_cast_ray_worker_data_wait"}
    assert {"ray_cast_ray_validation", "ray_train_controller_state"} <= shown


def test_panels_do_not_overlap_and_fit() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        assert place["x"] + place["w"] <= 24
        taken |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_the_data_source_is_chosen_in_grafana() -> None:
    """An id of somebody's installation would make the dashboard empty everywhere else."""
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    assert variables == {"datasource", "run"}
    for panel in PANELS:
        assert panel["datasource"]["uid"] == "${datasource}"
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}
