"""Which tables of positions in translated weights have another size than the network's, and what they become."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping

from torch import Tensor

from cast_ray.models.experts.expert import Expert
from cast_ray.models.network import Network
from cast_ray.models.spec import AST
from cast_ray.weights.resize import (
    Grid,
    resize_image_grid,
    resize_spectrogram_grid,
    resize_time,
    spectrogram_grid,
    square_grid,
)

__all__ = ["fit_expert", "fit_network"]

EMBEDDED = ("embedding.positions", "embedding.vit.pos_embed")
"""Names of an expert's own table: ours, and timm's."""
EXCHANGED = re.compile(r"exchanges\.\d+\.attention\.(\w+)_to_(\w+)\.(source|target)_positions\.(time|space)")


def fit_expert(
    expert: Expert, tensors: Mapping[str, Tensor], *, grid: Grid | None = None, published: bool = True
) -> tuple[dict[str, Tensor], list[str]]:
    """Tensors by name below an expert, with positions of the expert's own grid; and what was resized, in words.

    `grid` is that of the given positions, if known; if not, it is guessed, for `published` weights in another way than
    for ours. A table that cannot be brought to size is left as it is; the strict load then names it.
    """
    fitted, notes = dict(tensors), []
    own = dict(expert.named_parameters())
    for name in EMBEDDED:
        if name in tensors and name in own and tensors[name].shape != own[name].shape:
            resized = _resize_patches(expert, tensors[name], own[name].shape, grid=grid, published=published)
            if resized is not None:
                fitted[name], old = resized
                notes.append(_note(name, _size(old), _size(expert.layout.grid)))
    return fitted, notes


def fit_network(network: Network, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """The same for all tables of a network: those of its experts, and those of its exchanges."""
    fitted, notes = dict(tensors), []
    for role, expert in network.experts.items():
        prefix = f"experts.{role}."
        below = {name.removeprefix(prefix): x for name, x in tensors.items() if name.startswith(prefix)}
        resized, more = fit_expert(expert, below, published=False)
        fitted |= {prefix + name: x for name, x in resized.items()}
        notes += [prefix + note for note in more]
    own = dict(network.named_parameters())
    for name, expert, axis in _exchange_tables(network, tensors):
        if name not in own or tensors[name].shape == own[name].shape or tensors[name].ndim != 2:
            continue
        if axis == "time":
            fitted[name] = resize_time(tensors[name], len(own[name]))
            notes.append(_note(name, str(len(tensors[name])), f"{len(own[name])} steps"))
        elif (found := _resize_patches(expert, tensors[name], own[name].shape, published=False)) is not None:
            fitted[name], old = found
            notes.append(_note(name, _size(old), _size(expert.layout.grid)))
    return fitted, notes


def _exchange_tables(network: Network, tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Expert, str]]:
    """Name, expert and axis (time or space) of every table of an exchange."""
    for name in tensors:
        match = EXCHANGED.fullmatch(name)
        if match is not None:
            source, target, side, axis = match.groups()
            role = source if side == "source" else target
            if role in network.experts:
                yield name, network.experts[role], axis


def _resize_patches(
    expert: Expert, table: Tensor, shape: tuple[int, ...], *, grid: Grid | None = None, published: bool
) -> tuple[Tensor, Grid] | None:
    """The table [..., S + N, D] in the given shape, and the grid it was made for; None if that cannot be told."""
    new = expert.layout.grid
    special = shape[-2] - math.prod(new)
    patches = table.shape[-2] - special if table.ndim == len(shape) else 0
    if patches <= 0 or special < 0 or table.shape[-1] != shape[-1]:
        return None
    old = grid if grid is not None and math.prod(grid) == patches else _grid_of(expert, patches, published)
    if old is None:
        return None
    resize = resize_spectrogram_grid if isinstance(expert.spec, AST) else resize_image_grid
    return resize(table.reshape(table.shape[-2:]), old, new, special=special).reshape(shape), old


def _grid_of(expert: Expert, patches: int, published: bool) -> Grid | None:
    spec = expert.spec
    if isinstance(spec, AST):
        sizes = {"patch_size": spec.patch_size, "stride": spec.stride, "rows": expert.layout.grid[0]}
        return spectrogram_grid(patches, **sizes, published=published)
    return square_grid(patches)


def _size(grid: Grid) -> str:
    return f"{grid[0]} x {grid[1]}"


def _note(name: str, old: str, new: str) -> str:
    return f"{name} resized {old} -> {new}"
