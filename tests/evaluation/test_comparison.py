"""The table of several models' figures."""

from __future__ import annotations

from cast_ray.evaluation.comparison import comparison
from cast_ray.labels import LabelMap


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
