"""Differences of configurations are found, also between versions."""

from __future__ import annotations

import dataclasses

import pytest

from cast_ray.errors import UserError
from cast_ray.recipes import RECIPES
from cast_ray.recipes.small import small
from cast_ray.report.settings import between_runs, check_recipe, closest_recipe


def changed(config, **settings):
    return dataclasses.replace(config, optim=dataclasses.replace(config.optim, **settings))


@pytest.mark.parametrize("name", list(RECIPES))
def test_a_recipe_is_closest_to_itself(name):
    found = closest_recipe(dataclasses.replace(RECIPES[name](), name="run", storage="elsewhere").to_dict())
    assert name in found.recipe.split(", ")
    assert not found.rows


def test_changes_of_a_recipe_are_listed():
    config = changed(small(RECIPES["ssv2"]()), epochs=2, base_lr=0.5)
    found = closest_recipe(config.to_dict())
    assert "ssv2 --small" in found.recipe.split(", ")
    assert found.rows == [("optim.epochs", "12", "2"), ("optim.base_lr", "0.016", "0.5")]


def test_runs_of_other_versions_are_compared():
    one = RECIPES["ssv2"]().to_dict()
    other = {**one, "seed": 4, "new": {"setting": True}}
    assert between_runs([one, other]) == [("seed", ["0", "4"]), ("new.setting", ["not there", "yes"])]


def test_an_unknown_recipe_is_refused():
    with pytest.raises(UserError, match="no recipe 'ssv3'; use one of"):
        check_recipe("ssv3")
