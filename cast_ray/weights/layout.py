"""What a source of weights is to the loader: how to recognise its files, which experts they fill, and how."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from cast_ray.models.spec import ExpertSpec
from cast_ray.weights.keymap import KeyMap
from cast_ray.weights.resize import Grid

__all__ = ["Layout", "Tensors", "Translated", "apply", "flatten_tables", "fuse_qkv", "without"]

Tensors = Mapping[str, Tensor]
"""Tensors by name."""


@dataclass(frozen=True, kw_only=True)
class Translated:
    """Tensors of a file under the names of one expert."""

    tensors: Mapping[str, Tensor]
    """By our name, below the expert."""
    unknown: tuple[str, ...] = ()
    """Names of the file that have no place here."""
    head: Mapping[str, Tensor] = field(default_factory=dict)
    """`weight` [C, D] and `bias` [C] of the classifier in a fine-tuned file."""
    grid: Grid | None = None
    """Rows and columns of patches of the position table, where the layout tells it."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One way in which a model of one family is stored."""

    name: str
    """For messages and tables."""
    families: tuple[type[ExpertSpec], ...]
    """Kinds of experts that such a file can fill."""
    holds: Callable[[Tensors], bool]
    """Whether tensors by name are such a file."""
    translate: Callable[[Tensors], Translated]
    """Pure: shares tensors where it can, changes none."""


def apply(key_map: KeyMap, tensors: Tensors) -> Translated:
    """Rename by a table, and bring tokens and positions into our shapes."""
    renamed, unknown = key_map.to_ours(tensors)
    return Translated(tensors=flatten_tables(renamed), unknown=tuple(unknown))


def without(tensors: Tensors, unused: tuple[str, ...]) -> dict[str, Tensor]:
    """The tensors whose names do not start with one of `unused`."""
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(unused)}


def flatten_tables(tensors: Tensors) -> dict[str, Tensor]:
    """Tokens [1, 1, D] become [D] and positions [1, S + N, D] become [S + N, D], as our embeddings have them."""
    flat = dict(tensors)
    for name, tensor in tensors.items():
        if re.fullmatch(r"embedding\.(\w+_token|positions)", name):
            rank = 2 if name.endswith("positions") else 1
            while tensor.ndim > rank and tensor.shape[0] == 1:
                tensor = tensor[0]
            flat[name] = tensor
    return flat


def fuse_qkv(tensors: Tensors) -> dict[str, Tensor]:
    """`attention.query`, `.key` and `.value` of every block become `attention.qkv`, where all three are there."""
    fused = dict(tensors)
    for name in tensors:
        match = re.fullmatch(r"(.*\.attention\.)query\.(weight|bias)", name)
        if match is not None:
            parts = [f"{match[1]}{part}.{match[2]}" for part in ("query", "key", "value")]
            # Different shapes do not belong together; the strict load then names them.
            if all(part in fused and fused[part].shape == fused[name].shape for part in parts):
                fused[f"{match[1]}qkv.{match[2]}"] = torch.cat([fused.pop(part) for part in parts])
    return fused
