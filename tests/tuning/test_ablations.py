"""The ablation tables: every variant exists and makes a network."""

from __future__ import annotations

import dataclasses

import pytest

from cast_ray.errors import UserError
from cast_ray.models.named import spec_of
from cast_ray.recipes.ek100 import ek100_sound
from cast_ray.recipes.other_model import with_model
from cast_ray.recipes.small import small
from cast_ray.tuning.ablations import TABLES, rows_for
from cast_ray.tuning.space import with_settings

WEIGHTS = {
    name: f"/{name}"
    for name in ("clip", "in21k", "eva", "mvd", "videomae", "videomae-ek100", "videomae-ssv2", "videomae-k400")
}
SIZES = ("base_patch16_224", "tiny")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("table", TABLES)
def test_every_row_makes_a_network(table, size):
    model = f"{TABLES[table].base}_{size}"
    if (table, size) == ("1f", "tiny"):
        with pytest.raises(UserError, match="there is no model cast_tiny_last3; take another size"):
            rows_for(table, model, {})
        return
    recipe = ek100_sound() if size != "tiny" else small(ek100_sound())
    base = with_model(dataclasses.replace(recipe, weights=dataclasses.replace(recipe.weights, audio=None)), model)
    specs = []
    for settings in rows_for(table, model, WEIGHTS).values():
        config = with_settings(base, settings)
        specs.append((spec_of(config.model), config.weights.spatial, config.weights.temporal))
    assert len(specs) == len({repr(spec) for spec in specs}), "two rows are the same run"


@pytest.mark.parametrize("table", TABLES)
def test_a_table_has_no_label_twice_and_figures_in_percent(table):
    rows = TABLES[table].rows
    assert len({row.label for row in rows}) == len(rows)
    for row in rows:
        verb, noun, action = row.published or (100.0, 100.0, 1.0)
        assert 0 < action <= min(verb, noun) <= 100


def test_a_table_that_does_not_exist_is_answered_with_those_that_do():
    with pytest.raises(UserError, match="no ablation table '1z'") as caught:
        rows_for("1z", "cast_tiny", {})
    assert all(f"{name}: {table.title}" in str(caught.value) for name, table in TABLES.items())


def test_a_table_of_another_family_of_models_says_which_it_is_about():
    with pytest.raises(UserError, match=r"table msca is about framewise_\.\.\., but model.name is cast_tiny"):
        rows_for("msca", "cast_tiny", {})


def test_missing_expert_weights_are_named_with_the_flag():
    with pytest.raises(UserError, match=r"'EK100' of table 6 has clip as its spatial .*--expert-weights clip=FILE"):
        rows_for("6", "cast_base_patch16_224", {})
    with pytest.raises(UserError, match=r"'EVA, VideoMAE' of table 7 has eva as its spatial"):
        rows_for("7", "cast_base_patch16_224", {name: WEIGHTS[name] for name in ("clip", "mvd", "videomae")})


def test_weights_go_to_the_roles_that_the_row_has_them_in():
    rows = rows_for("1h", "cast_base_patch16_224", WEIGHTS)
    assert rows["VideoMAE, CLIP"]["weights.spatial"] == "/videomae"
    assert rows["VideoMAE, CLIP"]["weights.temporal"] == "/clip"
    assert rows["CLIP, VideoMAE"] == {"model.name": "cast_base_patch16_224"}


def test_a_table_of_networks_trained_from_scratch_needs_no_weights():
    assert all(set(row) == {"model.name"} for row in rows_for("7", "cast_tiny", {}).values())
