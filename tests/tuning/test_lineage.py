"""What a population's results say of who went on from whom."""

from __future__ import annotations

import dataclasses

from cast_ray.tuning.lineage import Stage, schedule_rows, takeover_rows, with_lineage, write_lineage

FIRST = Stage(after=0, trial="a", taken_from=None, values={"optim.base_lr": 0.5})
OWN = Stage(after=0, trial="b", taken_from=None, values={"optim.base_lr": 0.125})
SECOND = Stage(after=2, trial="b", taken_from="a", values={"optim.base_lr": 0.25})


def population(make_result, folder, *scores):
    """Trial a as it began, b with another run from epoch 3 on."""
    for run, lineage in {"a": (FIRST,), "b": (OWN,), "b-e002-x": (FIRST, SECOND)}.items():
        write_lineage(f"{folder}/{run}", lineage)
    results = [make_result("a", FIRST.values, 0.25, 0.5, 0.25), make_result("b", SECOND.values, *scores)]
    runs = [("a",) * 3, ("b", "b", "b-e002-x", "b-e002-x")]
    told = [
        dataclasses.replace(
            result, reports=tuple(row | {"run": run} for row, run in zip(result.reports, of, strict=False))
        )
        for result, of in zip(results, runs, strict=True)
    ]
    return with_lineage(told, str(folder))


def test_the_best_score_has_the_schedule_that_led_to_it(make_result, tmp_path):
    a, b = population(make_result, tmp_path, 0.1, 0.2, 0.6, 0.75)
    assert (a.schedule, a.takeovers, schedule_rows(a)) == ((FIRST,), (), [])
    assert (b.schedule, b.takeovers, b.values) == ((FIRST, SECOND), (SECOND,), SECOND.values)
    assert schedule_rows(b) == [("1 to 2", FIRST), ("3 to 4", SECOND)]
    assert takeover_rows([a, b]) == [SECOND]


def test_a_best_score_before_the_takeover_has_the_values_of_then(make_result, tmp_path):
    _, b = population(make_result, tmp_path, 0.1, 0.8, 0.6, 0.7)
    assert (b.schedule, b.takeovers, b.values) == ((OWN,), (SECOND,), OWN.values)
    assert schedule_rows(b) == []


def test_an_only_epoch_is_a_number(make_result, tmp_path):
    _, b = population(make_result, tmp_path, 0.1, 0.2, 0.8, 0.6)
    assert schedule_rows(b)[1] == ("3", SECOND)


def test_a_trial_that_failed_before_its_first_report_stays_as_it_is(make_result, tmp_path):
    failed = make_result("c", {}, error="lost")
    assert with_lineage([failed], str(tmp_path)) == (failed,)


def test_a_lineage_that_is_there_stays(tmp_path):
    write_lineage(str(tmp_path), (FIRST,))
    before = (tmp_path / "lineage.json").read_bytes()
    write_lineage(str(tmp_path), (OWN,))
    assert (tmp_path / "lineage.json").read_bytes() == before
