"""Curves show what was recorded, of one run and of several."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cast_ray.report.curves import MOST_POINTS, learning_charts


def test_no_history_gives_no_charts():
    assert learning_charts({"run": []}) == {}


def test_curves_of_a_run_show_the_recorded_values(history):
    charts = learning_charts({"run": history})
    assert set(charts) == {"loss", "validation", "rate", "wait", "speed"}
    loss = {line.name: line for line in charts["loss"].lines}
    assert loss["training"].points[-1][0] == 3.0
    assert loss[""].points[1] == (0.1, 1.5), "raw"
    assert loss["validation"].points == [(3.0, 1.0)]
    accuracies = {line.name: line.points for line in charts["validation"].lines}
    assert accuracies == {"verb": [(3.0, 0.5)], "noun": [(3.0, 0.6)], "action": [(3.0, 0.4)]}


def test_curves_of_several_runs_have_a_chart_for_each_field_and_a_line_for_each_run(history):
    better = [
        row | {"validation": {"verb_top1": 0.9, "loss": 0.1}} if row["kind"] == "epoch" else row for row in history
    ]
    charts = learning_charts({"a": history, "b": better})
    assert {line.name: line.points for line in charts["validation-verb"].lines} == {
        "a": [(3.0, 0.5)],
        "b": [(3.0, 0.9)],
    }
    assert [line.name for line in charts["validation-noun"].lines] == ["a"]
    listed = [(line.name, line.colour) for line in charts["loss"].lines if line.listed]
    assert listed == [("a", 0), ("b", 1)]


def test_values_that_are_missing_or_not_finite_are_left_out(history):
    rows = [dict(row) for row in history[:5]]
    rows[1]["loss"], rows[2]["loss"] = math.nan, None
    del rows[3]["loss"]
    (line,) = [line for line in learning_charts({"run": rows})["loss"].lines if line.name == "training"]
    assert [x for x, _ in line.points] == [0.05, 0.25]


def test_a_long_run_is_thinned_and_keeps_its_mean():
    rows = [{"kind": "step", "epoch": step / 100, "loss": step % 7, "learning_rate": step} for step in range(30_000)]
    charts = learning_charts({"run": rows})
    assert all(len(line.points) <= MOST_POINTS for chart in charts.values() for line in chart.lines)
    assert np.mean([y for _, y in charts["rate"].lines[0].points]) == pytest.approx(np.mean(range(30_000)))
