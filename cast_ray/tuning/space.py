"""Which settings a search tries: dotted names of settings, each with values to draw from, checked before anything runs.

A space is plain Python, in a file of the user's own or among those below::

    from ray import tune

    SPACE = {
        "optim.base_lr": tune.loguniform(3e-4, 3e-3),
        "model.drop_path": tune.choice([0.0, 0.1, 0.2]),
        "model.options.down_ratio": tune.choice([1, 2, 4]),
    }
"""

from __future__ import annotations

import difflib
import itertools
import math
import runpy
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import dacite
from ray import tune
from ray.tune.search.sample import Categorical, Domain, Float, Integer

from cast_ray.config import RunConfig
from cast_ray.errors import UserError
from cast_ray.recipes.other_model import with_model

__all__ = ["SPACES", "Space", "check_space", "count_trials", "read_space", "with_settings"]

Space: TypeAlias = Mapping[str, Any]
"""Dotted name of a setting -> what to draw its values from, or one value for all trials."""

NAME = "SPACE"
"""What the space is called in a user's file."""

SPACES: Mapping[str, Space] = {
    "optimiser": {
        "optim.base_lr": tune.loguniform(3e-4, 5e-3),
        "optim.weight_decay": tune.loguniform(0.005, 0.5),
        "optim.layer_decay": tune.uniform(0.6, 1.0),
        "optim.label_smoothing": tune.choice([0.0, 0.1, 0.2]),
        "model.drop_path": tune.choice([0.0, 0.1, 0.2]),
    },
    "exchange": {
        "model.options.down_ratio": tune.choice([1, 2, 4, 8]),
        "model.options.to_spatial": tune.choice(["time", "space", "space_time"]),
        "model.options.to_temporal": tune.choice(["time", "space", "space_time"]),
        "model.options.positions": tune.choice(["learned", "none"]),
    },
    "augmentation": {
        "augment.mixup_alpha": tune.choice([0.0, 0.2, 0.8]),
        "augment.cutmix_alpha": tune.choice([0.0, 1.0]),
        "augment.erase": tune.choice([0.0, 0.25]),
        "augment.rand_augment": tune.choice([None, "rand-m7-n4-mstd0.5-inc1", "rand-m9-n2-mstd0.5-inc1"]),
    },
}
"""Ready to use, by name."""


def read_space(place: str) -> Space:
    """A space by its name in `SPACES`, or the `SPACE` of a Python file, which is run.

    Raises:
        UserError: there is neither, or the file defines no space.
    """
    if place in SPACES:
        return SPACES[place]
    if not Path(place).is_file():
        raise UserError(f"there is no search space '{place}'; use one of {sorted(SPACES)}, or a file with {NAME}")
    try:
        space = runpy.run_path(place).get(NAME)
    except Exception as error:
        raise UserError(f"{place} cannot be run: {type(error).__name__}: {error}; correct it") from error
    if not isinstance(space, dict) or not space:
        raise UserError(f"{place} defines no {NAME}; give it a dictionary of settings, as docs/tuning.md shows")
    return space


def check_space(space: Space, base: RunConfig) -> None:
    """Raise `UserError` unless every setting of the space exists, and its values make a configuration.

    Of numbers the two ends are tried, of choices all, each with the other settings as in `base`.
    """
    for name, drawn in space.items():
        for value in _extremes(drawn):
            try:
                with_settings(base, {name: value}).check_experts()
            except UserError as error:
                raise UserError(f"the search space has {name} = {value!r}: {error}") from error


def count_trials(space: Space, each: int) -> int:
    """Trials of a search that takes every point of the space's grids so many times."""
    return each * math.prod(len(drawn["grid_search"]) for drawn in space.values() if isinstance(drawn, dict))


def with_settings(base: RunConfig, values: Mapping[str, Any]) -> RunConfig:
    """The configuration with some settings changed, given by their dotted names.

    Raises:
        UserError: there is no such setting, or its value is impossible.
    """
    values = {name.replace("-", "_"): value for name, value in values.items()}
    if "model.name" in values:  # the other model may not have all options of the base's
        base = with_model(base, str(values["model.name"]))
    settings = base.to_dict()
    for name, value in values.items():
        *sections, last = name.split(".")
        place: Any = settings
        for section in sections:
            place = place.get(section) if isinstance(place, dict) else None
        if not isinstance(place, dict) or last not in place or isinstance(place[last], dict):
            raise UserError(f"there is no setting '{name}'{_near(name, base)}")
        place[last] = list(value) if isinstance(value, tuple) else value
    try:
        return dacite.from_dict(RunConfig, settings, dacite.Config(cast=[tuple], strict=True))
    except dacite.DaciteError as error:
        raise UserError(f"impossible settings: {error}; see `--print-config` for what belongs there") from error


def _extremes(drawn: Any) -> list[Any]:
    if isinstance(drawn, Categorical):
        return list(drawn.categories)
    if isinstance(drawn, Integer):
        return [drawn.lower, drawn.upper - 1]
    if isinstance(drawn, Float):
        return [drawn.lower, drawn.upper]
    if isinstance(drawn, dict) and set(drawn) == {"grid_search"}:
        return list(drawn["grid_search"])
    if isinstance(drawn, Domain):
        return list(itertools.islice((drawn.sample() for _ in itertools.count()), 8))
    return [drawn]


def _near(name: str, base: RunConfig) -> str:
    from cast_ray.configuration import flat_settings

    known = [known for known, _ in flat_settings(base.to_dict())]
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    return f"; did you mean {' or '.join(near)}?" if near else "; `--print-config` shows all of them"
