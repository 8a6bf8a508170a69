"""What is settled before a search runs, without a cluster."""

from __future__ import annotations

import dataclasses

import pytest
from ray import tune

from cast_ray.errors import UserError
from cast_ray.recipes.ek100 import ek100
from cast_ray.recipes.small import small
from cast_ray.tuning import search
from cast_ray.tuning.method import Method
from cast_ray.tuning.space import count_trials
from cast_ray.tuning.trial import Trial

SPACE = {"optim.base_lr": tune.loguniform(1e-3, 1e-2), "model.drop_path": tune.choice([0.0, 0.1])}


def begun(folder, *, trial=None, space=None, method=None):
    # A space made anew, as in another process.
    space = space or {"optim.base_lr": tune.loguniform(1e-3, 1e-2), "model.drop_path": tune.choice([0.0, 0.1])}
    trial = trial or Trial(base=small(ek100()), datasets={"": "/shards"})
    return search._begun(str(folder), search._description(trial, space, method or Method()))


def test_the_same_search_is_recognised(tmp_path):
    assert not begun(tmp_path / "search")
    assert begun(tmp_path / "search")


def test_how_many_trials_run_at_once_may_change_when_a_search_goes_on(tmp_path):
    begun(tmp_path)
    assert begun(tmp_path, method=Method(max_concurrent=3))


def test_another_search_of_the_same_name_is_refused_with_all_that_differs(tmp_path):
    begun(tmp_path)
    base = small(ek100())
    base = dataclasses.replace(base, optim=dataclasses.replace(base.optim, epochs=3))
    other = Trial(base=base, datasets={"": "/others"}, views=True)
    space = SPACE | {"optim.base_lr": tune.loguniform(1e-4, 1e-2)}
    with pytest.raises(UserError, match="holds a search with other settings") as caught:
        begun(tmp_path, trial=other, space=space, method=Method(trials=5))
    text = str(caught.value)
    assert "base optim.epochs: was 12, is 3" in text
    assert "views: was False, is True" in text
    assert "method trials: was 16, is 5" in text
    assert "was /shards, is /others" in text
    assert "space optim.base_lr: was " in text
    assert "'lower': '0.0001'" in text
    assert " object at " not in text
    assert "drop_path" not in text


def test_a_damaged_note_of_what_was_asked_for_is_named(tmp_path):
    begun(tmp_path)
    (tmp_path / search.SEARCH_FILE).write_text("{")
    with pytest.raises(UserError, match=r"search\.json is damaged"):
        begun(tmp_path)


@pytest.mark.parametrize(
    ("has", "expected"),
    [({"CPU": 2.0}, 1), ({"CPU": 1.0}, 1), ({"CPU": 5.9}, 2), ({"CPU": 64.0}, 32), ({"CPU": 64.0, "GPU": 4.0}, 32)],
)
def test_as_many_trials_run_at_once_as_fit_the_cluster(monkeypatch, has, expected):
    """A small trial has two workers with half a core each, and needs a core to decode."""
    monkeypatch.setattr(search.ray, "cluster_resources", lambda: has)
    assert search.most_at_once(small(ek100())) == expected


def test_the_scarcest_resource_decides(monkeypatch):
    config = ek100()
    config = dataclasses.replace(config, scale=dataclasses.replace(config.scale, num_workers=4, min_workers=1))
    monkeypatch.setattr(search.ray, "cluster_resources", lambda: {"CPU": 1000.0, "GPU": 8.0})
    assert search.most_at_once(config) == 2


def test_a_grid_needs_a_search_that_can_walk_it():
    grid = SPACE | {"seed": tune.grid_search([1, 2])}
    with pytest.raises(UserError, match=r"a grid for seed, .*--method\.search random"):
        search._search_algorithm(Method(), grid, 1)
    assert search._search_algorithm(Method(search="random"), grid, 3).max_concurrent == 3


def test_a_grid_multiplies_the_trials():
    space = SPACE | {"seed": tune.grid_search([1, 2, 3]), "optim.epochs": tune.grid_search([4, 5])}
    assert count_trials(space, 4) == 24
    assert count_trials(SPACE, 4) == 4


@pytest.mark.parametrize("at_once", range(1, 60))
def test_just_so_many_drivers_of_a_population_fit_with_what_train_needs_beside_them(at_once):
    parts = int(search._share_of_head(at_once) * 10_000 + 1e-6)
    fit = min(at_once, search.MOST_OF_POPULATION)
    # Ray has been seen to cut off a part of 0.3334.
    for reserved in (parts, parts - 1):
        assert (fit + 1) * reserved > 10_000
        # A thousandth for each run's cleaner, for Train's list of runs, and some drivers of other searches.
        assert fit * reserved + 10 * (fit + 10) <= 10_000


def test_all_of_a_population_are_there_from_the_start_and_may_walk_a_grid():
    method = Method(scheduler="pbt")
    grid = SPACE | {"optim.clip_grad": tune.grid_search([1.0, 2.0])}
    assert search._search_algorithm(method, grid, None).max_concurrent == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"trials": 0},
        {"grace_epochs": 0},
        {"keep_one_of": 1},
        {"max_concurrent": 0},
        {"exploit_every": 0},
        {"exploit_share": 0.0},
        {"exploit_share": 0.6},
        {"resample": 1.5},
    ],
)
def test_an_impossible_method_is_refused(wrong):
    with pytest.raises(UserError, match=f"method.{next(iter(wrong)).replace('_', '-')} is "):
        Method(**wrong)
