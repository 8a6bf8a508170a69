"""How names of one checkpoint layout translate into another's: a table, read in either direction."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from cast_ray.errors import UserError

__all__ = ["KeyMap"]

BLOCK = "{i}"
TENSORS = (".weight", ".bias")


@dataclass(frozen=True)
class KeyMap:
    """Pairs (our name, foreign name). `{i}` stands for a block number, a trailing `.*` for weight and bias."""

    pairs: tuple[tuple[str, str], ...]

    def to_ours(self, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
        """Rename foreign tensors.

        Returns:
            The tensors under our names, and the foreign names that the table does not know.

        Raises:
            UserError: two foreign tensors claim the same name of ours.
        """
        return _rename(tensors, self._foreign_to_ours)

    def to_foreign(self, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
        """Rename our tensors; returns them under foreign names, and our names that the table does not know."""
        return _rename(tensors, self._ours_to_foreign)

    @cached_property
    def _expanded(self) -> tuple[tuple[str, str], ...]:
        expanded = []
        for ours, foreign in self.pairs:
            if ours.endswith(".*"):
                expanded += [(ours[:-2] + tensor, foreign[:-2] + tensor) for tensor in TENSORS]
            else:
                expanded.append((ours, foreign))
        return tuple(expanded)

    @cached_property
    def _foreign_to_ours(self) -> dict[str, str]:
        return {foreign: ours for ours, foreign in self._expanded}

    @cached_property
    def _ours_to_foreign(self) -> dict[str, str]:
        return dict(self._expanded)


def _rename(tensors: Mapping[str, Tensor], templates: Mapping[str, str]) -> tuple[dict[str, Tensor], list[str]]:
    renamed: dict[str, Tensor] = {}
    came_from: dict[str, str] = {}
    unknown = []
    for name, tensor in tensors.items():
        new = _translate(name, templates)
        if new is None:
            unknown.append(name)
            continue
        if new in renamed:
            raise UserError(
                f"the checkpoint holds both '{came_from[new]}' and '{name}', which are one tensor here ('{new}'); "
                "remove the one that is not used from the file"
            )
        renamed[new], came_from[new] = tensor, name
    return renamed, unknown


def _translate(name: str, templates: Mapping[str, str]) -> str | None:
    if name in templates:
        return templates[name]
    # Only the first number is the block's: names like `mlp.fc1` hold none between dots.
    number = re.search(r"(?<=\.)\d+(?=\.)", name)
    if number is None:
        return None
    template = templates.get(f"{name[: number.start()]}{BLOCK}{name[number.end() :]}")
    return template.replace(BLOCK, number.group()) if template is not None else None
