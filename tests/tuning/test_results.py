"""What is kept of a trial."""

from __future__ import annotations

from types import SimpleNamespace

import pandas as pd

from cast_ray.tuning.results import ranked, result_of


def made(rows, error=None):
    frame = None if rows is None else pd.DataFrame(rows)
    return result_of(SimpleNamespace(metrics_dataframe=frame, error=error, path="s3://b/search/a1_3", config={"x": 1}))


def test_epochs_that_were_told_again_after_a_restore_count_once_with_the_later_figures():
    result = made([{"epoch": 1, "score": 0.1}, {"epoch": 2, "score": 0.2}, {"epoch": 2, "score": 0.25}])
    assert [(row["epoch"], row["score"]) for row in result.reports] == [(1, 0.1), (2, 0.25)]
    assert (result.name, result.values, result.best) == ("a1_3", {"x": 1}, 0.25)


def test_figures_with_all_views_come_after_the_last_epoch():
    rows = [{"epoch": 2, "score": 0.3, "views": True}, {"epoch": 1, "score": 0.1}, {"epoch": 2, "score": 0.2}]
    result = made(rows)
    reports = result.reports
    assert [(row["epoch"], bool(row["views"])) for row in reports] == [(1, False), (2, False), (2, True)]
    assert result.best == 0.2, "trials that were ended early have no such figures"


def test_a_trial_that_failed_before_its_first_report_has_the_last_line_of_its_error():
    for rows in (None, [], [{"time": 1}]):
        result = made(rows, error=RuntimeError("a long trace\nValueError: no such file\n"))
        assert (result.reports, result.best, result.error) == ((), None, "ValueError: no such file")


def test_ranking_puts_trials_without_a_score_last(make_result):
    trials = [make_result("a", {}, error="lost"), make_result("b", {}, 0.1), make_result("c", {}, 0.0, 0.3)]
    assert [trial.name for trial in ranked(trials)] == ["c", "b", "a"]
