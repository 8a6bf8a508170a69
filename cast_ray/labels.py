"""Which class names stand behind the label indices."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cast_ray.errors import UserError

__all__ = ["ACTION", "LABEL", "NOUN", "VERB", "LabelMap"]

LABEL, VERB, NOUN = "label", "verb", "noun"
"""Usual names of label fields: a one-label task has LABEL, a compositional one VERB and NOUN; others may join them."""

ACTION = "action"
"""Name of the figures that ask for verb and noun both; no name of a field."""

FIELD_NAME = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True)
class LabelMap:
    """Class names in index order, for each label field of a task.

    `fields` also fixes the order in which a clip's label indices are stored everywhere, such as `(label,)` or
    `(verb, noun)`. Two models are comparable, and a checkpoint fits a dataset, only if `fingerprint` is equal.

    Raises:
        UserError: there is no field, a field's name or its class names cannot be used.
    """

    names: Mapping[str, tuple[str, ...]]

    def __post_init__(self) -> None:
        if not self.names:
            raise UserError("the label map has no fields; give at least one, such as 'label'")
        for field, names in self.names.items():
            # They become parts of column and metric names.
            if not FIELD_NAME.fullmatch(field) or field == ACTION:
                raise UserError(
                    f"a label field is called {field!r}; use lower-case letters, digits and _, a letter first, and not "
                    f"'{ACTION}'"
                )
            if not names:
                raise UserError(f"the label map has no classes for '{field}'; give at least one")
            nameless = [index for index, name in enumerate(names) if not name.strip()]
            if nameless:
                raise UserError(f"class {nameless[0]} of '{field}' has an empty name; give every class a name")
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
    def from_json(cls, text: str, *, where: str = "the label map") -> LabelMap:
        """What `to_json` returned; `UserError` for anything else, in which `where` stands for the text."""
        try:
            values = json.loads(text)
        except ValueError:
            values = None
        if not isinstance(values, dict) or not all(isinstance(names, list) for names in values.values()):
            raise UserError(
                f"{where} is not a JSON object of class name lists: {text[:80]!r}; write it like "
                '{"label": ["first class", "second class"]}'
            )
        for field, names in values.items():
            for index, name in enumerate(names):
                if not isinstance(name, str):
                    raise UserError(
                        f"{where} has {json.dumps(name)} as class {index} of '{field}'; class names are strings: "
                        "put it in quotation marks, or correct it"
                    )
        return cls({field: tuple(names) for field, names in values.items()})
