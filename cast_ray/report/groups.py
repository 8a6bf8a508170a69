"""Which super-category each class belongs to: from the user's file, from EPIC-KITCHENS-100's, or from SSV2's names.

A JSON file is an object {class: super-category}, or {field: {class: super-category}}. The official files
EPIC_100_noun_classes.csv and EPIC_100_verb_classes.csv are read as they are (columns key and category), which gives
the super-categories of figure 5 of the CAST paper. Classes that a file does not name are in the group "other".
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from cast_ray.data.catalog.files import read_csv
from cast_ray.errors import UserError
from cast_ray.labels import LabelMap

__all__ = ["OTHER", "Groups", "first_word_groups", "groups_of", "read_groups"]

Groups = Mapping[str, tuple[str, ...]]
"""Label field -> the super-category of each class."""

OTHER = "other"
MOST_EXAMPLES = 3
VERBS_NEEDED, CLASSES_PER_GROUP = 0.8, 3.0
"""When the first words of class names are groups: this share of them are verbs in -ing, and so many classes share one
on average. So it is with Something-Something-V2 (174 classes), and not with Kinetics-400."""


def groups_of(label_map: LabelMap, files: Sequence[str] = ()) -> dict[str, tuple[str, ...]]:
    """Super-categories of the classes of each label field that has any.

    Args:
        label_map: of the runs.
        files: JSON or CSV files, see above; fields that none is for go by the names of their classes.

    Raises:
        UserError: a file cannot be read, names a class that there is not, or fits no field.
    """
    found = {
        field: groups for field, names in label_map.names.items() if (groups := first_word_groups(names)) is not None
    }
    for file in files:
        found |= read_groups(file, label_map)
    return found


def first_word_groups(names: Sequence[str]) -> tuple[str, ...] | None:
    """The first word of each class name if that is a verb which several classes share, as in SSV2; else None."""
    words = [name.split(maxsplit=1)[0].capitalize() if name.split() else "" for name in names]
    verbs = sum(word.endswith("ing") for word in words)
    if verbs < VERBS_NEEDED * len(words) or len(words) < CLASSES_PER_GROUP * len(set(words)) or len(set(words)) < 2:
        return None
    return tuple(words)


def read_groups(file: str, label_map: LabelMap) -> dict[str, tuple[str, ...]]:
    """Super-categories of the fields that a file is for; see `groups_of`."""
    content = _from_csv(file) if file.endswith(".csv") else _from_json(file)
    by_field: dict[str, Mapping[str, object]] = {
        field: groups for field in label_map.fields if isinstance(groups := content.get(field), dict)
    }
    if not by_field:
        by_field = {_field_of(content, label_map, file): content}
    elif len(by_field) < len(content):
        unknown = sorted(content.keys() - by_field.keys())
        raise UserError(f"'{file}' has groups for {unknown}; the label fields are {list(label_map.fields)}")
    return {field: _of_classes(groups, label_map.names[field], file, field) for field, groups in by_field.items()}


def _field_of(content: Mapping[str, object], label_map: LabelMap, file: str) -> str:
    """The field most of whose classes a file names."""
    shared = {field: len(content.keys() & set(names)) for field, names in label_map.names.items()}
    best = max(shared, key=lambda field: shared[field])
    if not shared[best]:
        classes = [name for names in label_map.names.values() for name in names][:MOST_EXAMPLES]
        raise UserError(
            f"'{file}' names no class of the runs: it has {sorted(content)[:MOST_EXAMPLES]}, the runs have {classes}; "
            "give an object {class: super-category}"
        )
    return best


def _of_classes(groups: Mapping[str, object], names: Sequence[str], file: str, field: str) -> tuple[str, ...]:
    unknown = sorted(groups.keys() - set(names))
    if unknown:
        raise UserError(
            f"'{file}' names {len(unknown)} classes that are no {field} of the runs: {unknown[:MOST_EXAMPLES]}; "
            "give the names as they stand in the label map"
        )
    wrong = [name for name, group in groups.items() if not isinstance(group, str) or not group]
    if wrong:
        raise UserError(f"'{file}' has no super-category as text for {wrong[:MOST_EXAMPLES]}; give one for each class")
    return tuple(str(groups.get(name, OTHER)) for name in names)


def _from_json(file: str) -> dict[str, object]:
    try:
        content = json.loads(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read the groups in '{file}': {error}; give a JSON file") from error
    if not isinstance(content, dict) or not content:
        raise UserError(f"'{file}' holds {str(content)[:40]!r}; give an object {{class: super-category}}")
    return content


def _from_csv(file: str) -> dict[str, object]:
    return {row["key"]: row["category"] for _, row in read_csv(Path(file), ("key", "category"))}
