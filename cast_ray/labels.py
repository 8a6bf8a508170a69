"""Which class names stand behind the label indices."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cast_ray.errors import UserError

__all__ = ["ACTION", "LABEL", "NOUN", "VERB", "LabelMap"]

LABEL, VERB, NOUN = "label", "verb", "noun"
"""Names of the label fields: a one-label task has LABEL, a compositional one VERB and NOUN."""

ACTION = "action"
"""Name of the figures that ask for verb and noun both."""


@dataclass(frozen=True)
class LabelMap:
    """Class names in index order, for each label field of a task.

    `fields` also fixes the order in which a clip's label indices are stored everywhere: `(label,)` or
    `(verb, noun)`. Two models are comparable, and a checkpoint fits a dataset, only if `fingerprint` is equal.
    """

    names: Mapping[str, tuple[str, ...]]

    def __post_init__(self) -> None:
        if tuple(self.names) not in ((LABEL,), (VERB, NOUN)):
            raise UserError(f"label fields are {list(self.names)}; use ['label'] or ['verb', 'noun']")
        for field, names in self.names.items():
            if not names:
                raise UserError(f"the label map has no classes for '{field}'; give at least one")
            if len(set(names)) != len(names):
                repeated = sorted({name for name in names if names.count(name) > 1})
                raise UserError(f"class names of '{field}' occur twice: {repeated[:5]}; make them unique")

    @property
    def fields(self) -> tuple[str, ...]:
        return tuple(self.names)

    @property
    def num_classes(self) -> dict[str, int]:
        return {field: len(names) for field, names in self.names.items()}

    @property
    def fingerprint(self) -> str:
        """First 16 hex digits of the SHA-256 of the names in order."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]

    def check(self, labels: Sequence[int], *, where: str) -> None:
        """Raise `UserError` if `labels` (one index per field, in field order) do not fit; `where` names the clip."""
        if len(labels) != len(self.fields):
            raise UserError(f"{where} has {len(labels)} labels, the label map has fields {list(self.fields)}")
        for index, (field, names) in zip(labels, self.names.items(), strict=True):
            if not 0 <= index < len(names):
                raise UserError(
                    f"{where} has {field} index {index}, but the label map has {len(names)} classes "
                    f"(0 to {len(names) - 1}); correct the annotation or give the label map that belongs to it"
                )

    def to_json(self) -> str:
        return json.dumps({field: list(names) for field, names in self.names.items()}, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> LabelMap:
        return cls({field: tuple(names) for field, names in json.loads(text).items()})
