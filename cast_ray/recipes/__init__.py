"""Complete configurations of runs: one function per recipe, and their names."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from cast_ray.config import RunConfig
from cast_ray.recipes.custom import custom
from cast_ray.recipes.ek100 import ek100, ek100_sound
from cast_ray.recipes.epic_sounds import epic_sounds
from cast_ray.recipes.k400 import k400
from cast_ray.recipes.kinetics_sound import kinetics_sound
from cast_ray.recipes.msca import msca
from cast_ray.recipes.ssv2 import ssv2
from cast_ray.recipes.toy import toy
from cast_ray.recipes.ucf101 import ucf101
from cast_ray.recipes.vggsound import vggsound

__all__ = ["RECIPES"]

RECIPES: Mapping[str, Callable[[], RunConfig]] = {
    recipe.__name__: recipe
    for recipe in (
        ssv2,
        k400,
        ek100,
        ek100_sound,
        epic_sounds,
        vggsound,
        kinetics_sound,
        ucf101,
        msca,
        custom,
        toy,
    )
}
"""By name. docs/recipes.md says where every number is from."""
