from __future__ import annotations

import json
import math

import numpy as np
import pytest

from cast_ray.evaluation import plots

CURVES = [plots.loss_figure, plots.learning_rate_figure, plots.data_wait_figure, plots.validation_figure]


def history(steps: int) -> list[dict]:
    records: list[dict] = []
    for step in range(1, steps + 1):
        records.append(
            {"kind": "step", "step": step, "epoch": step / 10, "loss": 1 / step, "learning_rate": 0.1, "data_wait": 0.5}
        )
        if step % 10 == 0:
            accuracies = {"loss": 0.5, "verb_top1": 0.25, "noun_top1": 0.5, "action_top1": 0.2}
            records.append({"kind": "epoch", "epoch": step // 10, "step": step, "validation": accuracies})
    return records


def by_name(figure) -> dict:
    return {trace.name: trace for trace in figure.data if trace.name}


@pytest.mark.parametrize("curve", CURVES)
def test_no_history_gives_no_traces(curve):
    assert not curve([]).data


def test_curves_show_the_recorded_values():
    records = history(20)
    loss = by_name(plots.loss_figure(records))
    assert loss["training"].x == tuple(range(1, 21))
    # So few steps are not smoothed.
    assert loss["training"].y == pytest.approx([1 / step for step in range(1, 21)])
    assert (loss["validation"].x, loss["validation"].y) == ((10, 20), (0.5, 0.5))
    accuracies = by_name(plots.validation_figure(records))
    assert {name: (trace.x, trace.y) for name, trace in accuracies.items()} == {
        "verb": ((1, 2), (0.25, 0.25)),
        "noun": ((1, 2), (0.5, 0.5)),
        "action": ((1, 2), (0.2, 0.2)),
    }
    assert plots.data_wait_figure(records).data[0].y == (0.5,) * 20


def test_a_single_step_is_visible():
    for curve in (plots.loss_figure, plots.learning_rate_figure, plots.data_wait_figure):
        (trace,) = curve(history(1)).data
        assert "markers" in trace.mode


def test_values_that_are_missing_or_not_finite_are_left_out():
    records = history(5)
    records[1]["loss"] = math.nan
    records[2]["loss"] = None
    del records[3]["loss"]
    assert by_name(plots.loss_figure(records))["training"].x == (1, 5)


def test_a_long_run_is_thinned_and_keeps_its_mean():
    records = [{"kind": "step", "step": step, "loss": step % 7, "learning_rate": step} for step in range(30_000)]
    (trace,) = plots.learning_rate_figure(records).data
    assert len(trace.x) <= 1500
    assert np.mean(trace.y) == pytest.approx(np.mean(range(30_000)))
    assert all(len(trace.x) <= 1500 for trace in plots.loss_figure(records).data)


def test_confusion_shows_shares_of_the_true_class_and_names_in_the_hover():
    figure = plots.confusion_figure(np.array([[3, 1, 0], [0, 2, 0], [0, 0, 0]]), ["up", "down", "still"])
    (heatmap,) = figure.data
    np.testing.assert_array_equal(heatmap.z, np.float32([[0.75, 0.25, np.nan], [np.nan, 1, np.nan], [np.nan] * 3]))
    assert heatmap.customdata[0, 1] == "true: <b>up</b><br>predicted: <b>down</b><br>1 clip, 25.0% of the true class"
    assert heatmap.customdata[2, 0] is None
    assert figure.layout.yaxis.range == (2.5, -0.5), "the first class must be on top"
    assert figure.layout.xaxis.ticktext == ("up", "down", "still")


@pytest.mark.parametrize(("classes", "ticked"), [(60, True), (61, False), (400, False)])
def test_many_classes_keep_a_bounded_height_and_lose_only_the_tick_names(classes, ticked):
    names = [f"a rather long class name with the number {index}" for index in range(classes)]
    figure = plots.confusion_figure(np.eye(classes, dtype=np.int64), names)
    assert figure.layout.height <= 760
    assert (figure.layout.xaxis.ticktext is not None) == ticked
    assert (figure.layout.xaxis.showticklabels is not False) == ticked
    if ticked:
        assert max(map(len, figure.layout.xaxis.ticktext)) <= 22
    assert names[-1] in figure.data[0].customdata[-1, -1]
    assert len(figure.to_json()) < 2_500_000


def test_markup_in_class_names_is_shown_not_interpreted():
    name = '<a href="javascript:alert(1)">x</a> & y'
    figure = plots.confusion_figure(np.eye(2, dtype=np.int64), [name, "<b>"])
    shown = json.dumps([figure.data[0].customdata.tolist(), figure.layout.xaxis.ticktext])
    assert "<a" not in shown
    assert "&lt;a href" in shown
    assert figure.layout.xaxis.ticktext[1] == "&lt;b&gt;"


def test_both_colour_schemes_set_the_same_properties():
    assert plots.TEMPLATES["light"]["layout"].keys() == plots.TEMPLATES["dark"]["layout"].keys()
    assert plots.TEMPLATES["light"] != plots.TEMPLATES["dark"]
