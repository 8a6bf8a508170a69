"""The comparison over datasets as Markdown and picture."""

from __future__ import annotations

import pytest

from cast_ray.report.pictures import write_pictures
from cast_ray.tuning.datasets_table import datasets_balance, datasets_chart, datasets_markdown, datasets_means
from cast_ray.tuning.results import TrialResult
from cast_ray.tuning.trial import DATASET

NAMES = ("ssv2", "ek100")
# Student's t at 97.5 % with two runs is 12.706, the standard error half the distance: 0.02 -> +- 12.7 %. Only seed 1
# has both datasets: 3 / (1/0.4 + 1/0.6 + 1/0.3); the action does not count beside verb and noun.
GOLDEN = """\
| dataset | figure | top-1, % | runs |
| --- | --- | --- | --- |
| ssv2 | label | 41.0 +- 12.7 | 2 |
| ek100 | verb | 60.0 | 1 |
| ek100 | noun | 30.0 | 1 |
| ek100 | action | 20.0 | 1 |
| all | harmonic mean | 40.0 | 1 |
"""


def result(dataset: str, seed: int, **figures: float) -> TrialResult:
    reports = ({"epoch": 1, "score": 0.5} | {f"{name}_top1": value for name, value in figures.items()},)
    return TrialResult(
        name=f"{dataset}-{seed}",
        values={DATASET: dataset, "seed": seed},
        reports=reports if figures else (),
        error=None if figures else "lost",
    )


RESULTS = [
    result("ssv2", 1, label=0.40),
    result("ek100", 1, verb=0.6, noun=0.3, action=0.2),
    result("ssv2", 2, label=0.42),
    result("ek100", 2),
]


def test_every_task_has_its_mean_and_the_balance_is_over_all_of_them():
    found, balance = datasets_means(RESULTS), datasets_balance(RESULTS, NAMES)
    assert datasets_markdown(NAMES, found, balance) == GOLDEN


def test_a_dataset_of_which_all_runs_failed_is_told_and_there_is_no_balance():
    results = [RESULTS[0], RESULTS[3]]
    found, balance = datasets_means(results), datasets_balance(results, NAMES)
    assert balance is None
    assert datasets_markdown(NAMES, found, balance).splitlines()[2:] == [
        "| ssv2 | label | 40.0 | 1 |",
        "| ek100 |  | failed | 0 |",
    ]


def test_the_picture_has_all_figures_with_their_intervals(tmp_path):
    chart = datasets_chart(datasets_means(RESULTS), datasets_balance(RESULTS, NAMES))
    assert chart.labels == ("ssv2: label", "ek100: verb", "ek100: noun", "ek100: action", "harmonic mean")
    (bars,) = chart.series
    assert bars.values == pytest.approx((41, 60, 30, 20, 40))
    assert bars.ends[0] == pytest.approx((41 - 12.7062, 41 + 12.7062), abs=1e-3)
    write_pictures({"datasets": chart}, tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} >= {".png", ".svg"}
