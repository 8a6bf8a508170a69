"""What a checkpoint is: its layout, the family and sizes of the model in it, and which experts it fills."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from cast_ray.models.named import NAMED
from cast_ray.models.spec import AST, ExpertSpec, TimmViT
from cast_ray.weights.cast_author import from_author
from cast_ray.weights.layout import Tensors, Translated
from cast_ray.weights.layouts import WHOLE, layouts_of, whole_network_of
from cast_ray.weights.resize import spectrogram_grid, square_grid

__all__ = ["Description", "ExpertSizes", "describe"]

PATCHES = ("embedding.patch.weight", "embedding.vit.patch_embed.proj.weight")
TABLES = ("embedding.positions", "embedding.vit.pos_embed")


@dataclass(frozen=True, kw_only=True)
class ExpertSizes:
    """What can be read from the tensors of one expert; None where the file does not tell."""

    families: tuple[str, ...]
    width: int | None
    depth: int
    patch: tuple[int, ...]
    """Size of a patch: height and width, with frames in front for video."""
    grid: tuple[int, int] | None
    """Rows and columns of the position table."""
    classes: int | None
    """Classes of a fine-tuned file's head."""
    models: tuple[str, ...] = ()
    """Named models with an expert of these sizes, as 'model:role'."""


@dataclass(frozen=True, kw_only=True)
class Description:
    """One checkpoint."""

    layout: str | None
    """None: unknown."""
    experts: Mapping[str, ExpertSizes]
    """By role in a whole network; a single expert has the key ''."""
    tensors: int
    parameters: int
    types: tuple[str, ...]
    names: tuple[str, ...]
    """The first few names."""


def describe(tensors: Tensors) -> Description:
    """What tensors by name are."""
    layout, experts = _experts(tensors)
    return Description(
        layout=layout,
        experts=experts,
        tensors=len(tensors),
        parameters=sum(x.numel() for x in tensors.values()),
        types=tuple(sorted({str(x.dtype).removeprefix("torch.") for x in tensors.values()})),
        names=tuple(list(tensors)[:5]),
    )


def _experts(tensors: Tensors) -> tuple[str | None, dict[str, ExpertSizes]]:
    whole = whole_network_of(tensors)
    if whole is not None:
        ours: Mapping[str, Tensor] = from_author(tensors)[0] if whole == WHOLE else tensors
        roles = sorted({name.split(".")[1] for name in ours if name.startswith("experts.")})
        return whole, {role: _sizes(_below(ours, f"experts.{role}."), ()) for role in roles}
    found = layouts_of(tensors)
    if not found:
        return None, {}
    families = tuple(dict.fromkeys(family for layout in found for family in layout.families))
    return found[0].name, {"": _sizes(found[0].translate(tensors), families)}


def _below(tensors: Mapping[str, Tensor], prefix: str) -> Translated:
    return Translated(tensors={name.removeprefix(prefix): x for name, x in tensors.items() if name.startswith(prefix)})


def _sizes(translated: Translated, families: tuple[type[ExpertSpec], ...]) -> ExpertSizes:
    tensors = translated.tensors
    patch = next((tensors[name] for name in PATCHES if name in tensors), None)
    table = next((tensors[name] for name in TABLES if name in tensors), None)
    blocks = [int(match[1]) for name in tensors if (match := re.match(r"blocks\.(\d+)\.", name))]
    width = None if patch is None else patch.shape[0]
    depth = max(blocks, default=-1) + 1
    size = () if patch is None else tuple(patch.shape[2:])
    head = translated.head.get("weight")
    return ExpertSizes(
        families=tuple(family.__name__ for family in families),
        width=width,
        depth=depth,
        patch=size,
        grid=translated.grid or _grid(table, size, families),
        classes=None if head is None else len(head),
        models=tuple(_models(families, width=width, depth=depth, patch_size=size[-1] if size else None)),
    )


def _grid(
    table: Tensor | None, patch: tuple[int, ...], families: tuple[type[ExpertSpec], ...]
) -> tuple[int, int] | None:
    if table is None or len(patch) != 2:
        return None
    if AST in families:
        return spectrogram_grid(table.shape[-2] - 2, patch_size=patch[0], stride=AST().stride, rows=0)
    # One special token in most models; others have none or more.
    grids = (square_grid(table.shape[-2] - special) for special in (1, 0, 2, 5))
    return next((grid for grid in grids if grid is not None), None)


def _models(families: tuple[type[ExpertSpec], ...], **sizes: Any) -> list[str]:
    """Named models whose expert has such sizes; a timm expert also needs the right model, which no file tells."""
    kinds = tuple(family for family in families if family is not TimmViT)
    return [
        f"{name}:{role}"
        for name, spec in NAMED.items()
        for role, expert in spec.experts.items()
        if kinds and isinstance(expert, kinds) and all(getattr(expert, key) == x for key, x in sizes.items())
    ]
