"""The ablation table as Markdown and picture."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cast_ray.report.pictures import write_pictures
from cast_ray.tuning.ablation_table import ablation_chart, ablation_markdown, ablation_means
from cast_ray.tuning.results import TrialResult
from cast_ray.tuning.trial import VARIANT

# With two runs, Student's t at 97.5 % is 12.706 and the standard error half the distance: 0.02 -> +- 12.7 %.
GOLDEN = """\
Table 1g: direction. Top-1 on 0123abcd, in percent. The published figures are of EPIC-KITCHENS-100.

| variant | action | runs | published verb | published noun | published action |
| --- | --- | --- | --- | --- | --- |
| none | 30.0 | 1 | 68.1 | 54.2 | 41.7 |
| spatial to temporal | failed | 0 | 71.2 | 55.0 | 43.7 |
| temporal to spatial | failed | 0 | 68.7 | 60.5 | 46.7 |
| both | 51.0 +- 12.7 | 2 | 72.5 | 60.3 | 48.7 |
"""


@pytest.fixture
def results(make_result: Callable[..., TrialResult]) -> list[TrialResult]:
    return [
        make_result("3", {VARIANT: "both", "seed": 1}, 0.3, 0.50),
        make_result("0", {VARIANT: "none", "seed": 1}, 0.3, 0.2),
        make_result("4", {VARIANT: "both", "seed": 2}, 0.3, 0.52),
        make_result("1", {VARIANT: "spatial to temporal", "seed": 1}, error="lost"),
    ]


def test_the_table_has_our_figures_beside_the_published_ones_in_the_papers_order(results):
    found = ablation_means("1g", results)
    assert list(found) == ["none", "both"]
    assert ablation_markdown("1g", found, "0123abcd") == GOLDEN


def test_a_table_without_published_figures_has_no_columns_for_them(make_result):
    found = ablation_means("ca2st-merge", [make_result("0", {VARIANT: "sum"}, 0.5)])
    head = ablation_markdown("ca2st-merge", found, "data").splitlines()[2]
    assert head == "| variant | action | runs |"


def test_the_picture_shows_the_intervals(results, tmp_path):
    chart = ablation_chart("1g", ablation_means("1g", results))
    assert chart.labels == ("none", "both")
    (bars,) = chart.series
    assert bars.values == pytest.approx((30.0, 51.0))
    assert bars.ends[0] == pytest.approx((30.0, 30.0))
    assert bars.ends[1] == pytest.approx((51 - 12.7062, 51 + 12.7062), abs=1e-3)
    write_pictures({"table": chart}, tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} >= {".png", ".svg"}
