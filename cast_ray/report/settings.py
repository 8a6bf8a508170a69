"""How the configurations of runs differ, from each other and from the recipe that is closest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cast_ray.config import RunConfig
from cast_ray.configuration import flat_settings
from cast_ray.errors import UserError
from cast_ray.recipes import RECIPES
from cast_ray.recipes.small import small

__all__ = ["FromRecipe", "between_runs", "check_recipe", "closest_recipe", "readable"]

PLACES = ("name", "storage")
"""Settings in which all runs differ, and which change no result."""
ABSENT = object()


@dataclass(frozen=True, kw_only=True)
class FromRecipe:
    """What a run changes of a recipe."""

    recipe: str
    """Its name, with --small behind it if it is that; several names if those recipes are the same."""
    rows: Sequence[tuple[str, str, str]]
    """Setting, value in the recipe, value in the run."""


def between_runs(configs: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[str]]]:
    """Setting and value in each run of every setting that is not the same in all; runs may be of other versions."""
    flat = [_flat(config) for config in configs]
    names = dict.fromkeys(name for settings in flat for name in settings)
    rows = {name: [settings.get(name, ABSENT) for settings in flat] for name in names}
    return [
        (name, [readable(value) for value in values])
        for name, values in rows.items()
        if any(value != values[0] for value in values)
    ]


def check_recipe(recipe: str | None) -> None:
    """Raise `UserError` unless there is a recipe of that name, or none is asked for."""
    if recipe is not None and recipe not in RECIPES:
        raise UserError(f"there is no recipe '{recipe}'; use one of {sorted(RECIPES)}")


def closest_recipe(config: Mapping[str, Any], recipe: str | None = None) -> FromRecipe:
    """The recipe, as it is or with --small, from which the run differs in the fewest settings.

    Args:
        config: of the run, as `RunConfig.to_dict` gives it.
        recipe: name of the recipe to compare with instead.
    """
    ours = _flat(config)
    found: dict[str, list[tuple[str, Any, Any]]] = {}
    for name, candidate in _candidates():
        if recipe is None or name.split()[0] == recipe:
            theirs = _flat(candidate.to_dict())
            pairs = [(key, theirs.get(key, ABSENT), ours.get(key, ABSENT)) for key in dict.fromkeys([*theirs, *ours])]
            found[name] = [row for row in pairs if row[1] != row[2]]
    fewest = min(found.values(), key=len)
    return FromRecipe(
        recipe=", ".join(name for name, rows in found.items() if rows == fewest),
        rows=[(name, readable(theirs), readable(value)) for name, theirs, value in fewest],
    )


def readable(value: Any) -> str:
    """A setting's value in words."""
    if value is ABSENT:
        return "not there"
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return ", ".join(readable(item) for item in value) or "none"
    return str(value)


def _candidates() -> Iterator[tuple[str, RunConfig]]:
    for name, make in RECIPES.items():
        yield name, make()
        try:
            yield f"{name} --small", small(make())
        except UserError:  # a recipe of a small model
            continue


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in flat_settings(dict(config)) if name not in PLACES}
