"""The embedded dataset: verb and noun of rendered clips, learnt from scratch on two CPU cores in minutes."""

from __future__ import annotations

import dataclasses

from cast_ray.config import RunConfig
from cast_ray.recipes.small import small
from cast_ray.recipes.ssv2 import ssv2

__all__ = ["toy"]


def toy() -> RunConfig:
    """The small form of the SSV2 recipe (no flips: left and right are labels), with a schedule for this dataset."""
    recipe = small(ssv2())
    return dataclasses.replace(recipe, storage="demo", validate_every=4, log_every=32)
