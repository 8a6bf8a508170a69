"""How timm finds the named models: importing this module lets `timm.create_model` build every one of them.

`timm.create_model("cast_tiny", num_classes={"verb": 97, "noun": 300}, img_size=48, down_ratio=4)` takes `img_size`,
`num_frames` and `drop_path_rate` as everywhere in timm, and any field of `cast_ray.models.options.ModelOptions`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from timm.models import register_model

from cast_ray.errors import UserError
from cast_ray.labels import LABEL
from cast_ray.models.assemble import assemble
from cast_ray.models.named import NAMED
from cast_ray.models.network import Network
from cast_ray.models.options import ModelOptions, vary

# A list, because timm appends the name of every registered model to it.
__all__: list[str] = []

TIMM_OPTIONS = ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")
"""What `timm.create_model` passes to every model; it concerns weights on a hub, which these models do not have."""
SIZES = ("img_size", "num_frames", "drop_path_rate")


def _create(name: str, pretrained: bool, num_classes: int | Mapping[str, int], options: dict[str, Any]) -> Network:
    if pretrained:
        raise UserError(f"{name} has no pretrained weights of its own; load its experts with cast_ray.weights.load")
    given = {key: value for key, value in options.items() if key not in TIMM_OPTIONS}
    valid = [field.name for field in fields(ModelOptions)]
    unknown = sorted(set(given) - {*valid, *SIZES})
    if unknown:
        raise UserError(f"{name} has no options {unknown}; valid are num_classes, {', '.join([*SIZES, *valid])}")
    sizes = {key: given.pop(key) for key in SIZES if key in given}
    spec = vary(NAMED[name], ModelOptions(**given))
    video = spec.video.resized(image_size=sizes.get("img_size"), num_frames=sizes.get("num_frames"))
    spec = replace(spec, video=video, drop_path_rate=sizes.get("drop_path_rate", spec.drop_path_rate))
    return assemble(spec, {LABEL: num_classes} if isinstance(num_classes, int) else num_classes)


def _register(name: str) -> None:
    def create(pretrained: bool = False, num_classes: int | Mapping[str, int] = 174, **options: Any) -> Network:
        return _create(name, pretrained, num_classes, options)

    create.__name__ = create.__qualname__ = name
    create.__doc__ = f"The network `{name}` of `cast_ray.models.named`, with random weights."
    register_model(create)


for _name in NAMED:
    _register(_name)
