"""Several models on the same clips, one model on several datasets, and the table of headline figures."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from cast_ray.errors import UserError
from cast_ray.evaluation.comparison import HARMONIC_MEAN, Resampling, across_datasets, compare, comparison
from cast_ray.evaluation.metrics import evaluate, harmonic_mean
from cast_ray.labels import LabelMap

SOON = Resampling(resamples=200)


def test_each_model_has_a_row_with_its_accuracy_per_field_and_chance_comes_last():
    label_map = LabelMap({"verb": ("left", "right"), "sound": ("a", "b", "c", "d")})
    summaries = {
        "one": {"verb_top1": 0.5, "sound_top1": 0.251, "verb_mean_class_accuracy": 0.9},
        "two": {"verb_top1": 1.0, "sound_top1": 0.0},
    }
    table = comparison(summaries, label_map)
    assert [column.header for column in table.columns] == ["model", "verb", "sound"]
    rows = list(zip(*(column.cells for column in table.columns), strict=True))
    assert rows == [("one", "50.0%", "25.1%"), ("two", "100.0%", "0.0%"), ("chance", "50.0%", "25.0%")]


@pytest.fixture
def runs(make_predictions, verb_noun_names):
    """A weak and a strong model; the strong one's clips come in another order."""
    weak = make_predictions(verb_noun_names, clips=300, skill=1)
    strong = make_predictions(verb_noun_names, clips=300, skill=4)
    order = np.random.default_rng(0).permutation(300)
    strong = dataclasses.replace(
        strong,
        clip_ids=tuple(strong.clip_ids[row] for row in order),
        labels=strong.labels[order],
        probabilities={field: values[order] for field, values in strong.probabilities.items()},
    )
    return {"weak": weak, "strong": strong}


def test_figures_are_those_of_the_metrics_and_differences_those_of_the_figures(runs):
    assessed = compare(runs, resampling=SOON)
    for name, predictions in runs.items():
        summary, one = evaluate(predictions).summary(), assessed[name]
        mean = harmonic_mean(summary["verb_top1"], summary["noun_top1"])
        assert {key: figure.value for key, figure in one.figures.items()} == pytest.approx(
            {**summary, HARMONIC_MEAN: mean}
        )
        assert all(figure.low <= figure.value <= figure.high for figure in one.figures.values())
        assert one.metrics.summary() == pytest.approx(summary)
    weak, strong = assessed.values()
    assert weak.differences == {}
    assert {key: one.value for key, one in strong.differences.items()} == pytest.approx(
        {key: figure.value - weak.figures[key].value for key, figure in strong.figures.items()}
    )
    assert all(one.excludes_zero and one.low > 0 for one in strong.differences.values())


def test_a_run_does_not_differ_from_itself(runs):
    assessed = compare({"a": runs["weak"], "b": runs["weak"]}, resampling=SOON)
    assert all((one.value, one.low, one.high) == (0, 0, 0) for one in assessed["b"].differences.values())
    assert not any(one.excludes_zero for one in assessed["b"].differences.values())


def test_the_same_seed_gives_the_same_intervals_and_another_others(runs):
    one = compare({"a": runs["weak"]}, resampling=SOON)["a"].figures
    assert one == compare({"a": runs["weak"]}, resampling=SOON)["a"].figures
    assert one != compare({"a": runs["weak"]}, resampling=dataclasses.replace(SOON, seed=1))["a"].figures


def test_runs_of_other_label_maps_are_not_compared(runs, make_predictions):
    with pytest.raises(UserError, match=r"'b' and 'weak' have different label maps: the fields are \['label'\]"):
        compare({"weak": runs["weak"], "b": make_predictions({"label": ("a", "b")}, clips=3)})


def test_datasets_have_a_harmonic_mean_over_all_their_tasks(runs, make_predictions):
    datasets = {"ek100": runs["weak"], "ssv2": make_predictions({"label": tuple("abcdef")}, clips=50, skill=2)}
    assessed, overall = across_datasets(datasets, resampling=SOON)
    tops = [evaluate(one).fields[field].top1 for one in datasets.values() for field in one.label_map.fields]
    assert len(tops) == 3
    assert overall.value == pytest.approx(harmonic_mean(*tops))
    assert overall.low < overall.value < overall.high
    assert "action_top5" in assessed["ek100"].figures
    assert list(assessed["ssv2"].figures) == ["label_top1", "label_top5", "label_mean_class_accuracy"]
    # Small datasets make wide intervals: that of the mean is not wider than its worst part's.
    widths = [one.figures[key].high - one.figures[key].low for one in assessed.values() for key in one.figures]
    assert overall.high - overall.low < max(widths)


@pytest.mark.parametrize("wrong", [{"resamples": 0}, {"level": 1.0}, {"level": 0.0}])
def test_resampling_that_makes_no_interval_is_refused(wrong):
    with pytest.raises(UserError, match="give 1 or more, and a level between 0 and 1"):
        Resampling(**wrong)
