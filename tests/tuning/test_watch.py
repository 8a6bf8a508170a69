"""What a person sees of a search."""

from __future__ import annotations

import io
import pickle
from types import SimpleNamespace

import pytest
from rich.console import Console

from cast_ray.tuning.watch import SearchLog, values_text


@pytest.fixture
def written():
    return io.StringIO()


@pytest.fixture
def log(written):
    return SearchLog(Console(file=written, width=200), trials=4, epochs=3, fields=("optim.base_lr", "seed"))


def trial(name, epoch=0, error="no disk\nOSError: [full]", checkpoint=None, **config):
    return SimpleNamespace(
        trial_id=name,
        config={"optim.base_lr": 0.00123, "seed": 5} | config,
        last_result={"epoch": epoch},
        get_error=lambda: error,
        latest_checkpoint_result=checkpoint,
    )


def test_every_validation_is_a_line_and_the_best_one_is_marked(log, written):
    log.on_trial_start(0, [], trial("a"))
    for epoch, score in ((1, 0.25), (2, 0.125)):
        log.on_trial_result(0, [], trial("a"), {"epoch": epoch, "score": score})
    log.on_trial_result(
        0, [], trial("a"), {"epoch": 2, "score": 0.125, "views": True, "verb_top1": 0.5, "noun_top1": 1}
    )
    log.on_trial_result(0, [], trial("a"), {"done": True})
    log.on_trial_complete(0, [], trial("a", epoch=2))
    log.on_trial_error(0, [], trial("b"))
    log.on_trial_complete(0, [], trial("c", epoch=3))
    assert written.getvalue().splitlines() == [
        "trial 1/4 starts  optim.base-lr 0.00123  seed 5",
        "  trial 1/4  epoch   1 of 3  score 25.00%  the best so far",
        "  trial 1/4  epoch   2 of 3  score 12.50%",
        "  trial 1/4  all test views of the best checkpoint: verb 50.00%, noun 100.00%",
        "  trial 1/4  ended early after epoch 2",
        "  trial 2/4  failed: OSError: [full]; the others go on",
        "  trial 3/4  complete",
    ]


def test_scores_of_different_datasets_are_not_compared(log, written):
    for name, dataset, score in (("a", "ssv2", 0.5), ("b", "ek100", 0.1), ("c", "ssv2", 0.4)):
        log.on_trial_result(0, [], trial(name, dataset=dataset), {"epoch": 1, "score": score})
    assert [line.partition("score")[2].strip() for line in written.getvalue().splitlines()] == [
        "50.00%  the best so far on ssv2",
        "10.00%  the best so far on ek100",
        "40.00%",
    ]


def test_a_restored_search_knows_its_trials_and_the_best_score(log, written):
    log.on_trial_start(0, [], trial("a"))
    log.on_trial_start(0, [], trial("b"))
    log.on_trial_result(0, [], trial("b"), {"epoch": 1, "score": 0.5})
    later = SearchLog(Console(file=written, width=200), trials=4, epochs=3, fields=())
    later.set_state(pickle.loads(pickle.dumps(log.get_state())))
    written.truncate(0)
    written.seek(0)
    later.on_trial_start(0, [], trial("b"))
    later.on_trial_result(0, [], trial("b"), {"epoch": 2, "score": 0.4})
    later.on_trial_start(0, [], trial("c"))
    assert [line.rstrip() for line in written.getvalue().splitlines()] == [
        "trial 2/4 goes on",
        "  trial 2/4  epoch   2 of 3  score 40.00%",
        "trial 3/4 starts",
    ]


def test_a_trial_that_goes_on_from_another_ones_checkpoint_says_from_whose(log, written):
    for name in ("a", "b"):
        log.on_trial_start(0, [], trial(name))
    for run in ("a-e002-1f", "b"):
        kept = SimpleNamespace(metrics={"run": run, "epoch": 2})
        log.on_trial_start(0, [], trial("b", checkpoint=kept))
    assert [line.split("  ")[0] for line in written.getvalue().splitlines()[2:]] == [
        "trial 2/4 takes over from trial 1 after epoch 2",
        "trial 2/4 goes on",
    ]


def test_an_epoch_that_is_told_again_is_no_line_again_but_that_with_all_views_is(log, written):
    log.on_trial_start(0, [], trial("a"))
    for report in ({"epoch": 2}, {"epoch": 2}, {"epoch": 1}, {"epoch": 3}, {"epoch": 3, "views": True}):
        log.on_trial_result(0, [], trial("a"), report | {"score": 0.5})
    assert [line.split()[3] for line in written.getvalue().splitlines()[1:]] == ["2", "3", "test"]


def test_tune_can_pickle_it(log):
    pickle.loads(pickle.dumps(log))


def test_settings_are_short():
    assert values_text({"optim.base_lr": 0.00123456, "a": None}, ("optim.base_lr", "a", "b")) == (
        "optim.base-lr 0.00123  a None"
    )
