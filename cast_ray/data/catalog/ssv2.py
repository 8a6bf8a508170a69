"""Which clips Something-Something-V2 has, read from its official JSON files.

Layout (https://www.qualcomm.com/developer/software/something-something-v-2-dataset): labels.json maps the template
without brackets to its index as a string; train.json and validation.json are lists of objects with `id` and
`template`, the latter with brackets around its placeholders; a clip's video is <id>.webm (or converted, <id>.mp4).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cast_ray.data.catalog.files import VideoFolder, find_annotation, index_names, read_json
from cast_ray.data.manifest import TRAIN, VALIDATION, Clip, Manifest
from cast_ray.errors import UserError
from cast_ray.labels import LABEL, LabelMap

__all__ = ["read_ssv2"]


def read_ssv2(videos: Path | str, annotations: Path | str) -> Manifest:
    """Read a dataset in the layout of Something-Something-V2; the one label is the template.

    Args:
        videos: folder with one video file per clip.
        annotations: folder with labels.json, train.json and validation.json (also accepted with the prefix
            "something-something-v2-" of the first release).

    Raises:
        UserError: a folder, file or video is missing, a file is not what it should be, a template is not among the
            labels, or a split is empty.
    """
    folder = VideoFolder.scan(videos)
    labels_path = _find(annotations, "labels")
    labels = _read_labels(labels_path)
    clips: list[Clip] = []
    for split in (TRAIN, VALIDATION):
        path = _find(annotations, split)
        found = _read_split(path, labels, labels_path)
        folder.require([clip_id for clip_id, _ in found], annotations=path)
        clips += [Clip(clip_id=i, uri=folder.uri(i), labels=(label,), split=split) for i, label in found]
    names = index_names([(index, name) for name, index in labels.items()], path=labels_path)
    return Manifest(clips=tuple(clips), label_map=LabelMap({LABEL: names}))


def _find(annotations: Path | str, name: str) -> Path:
    return find_annotation(annotations, f"{name}.json", f"something-something-v2-{name}.json")


def _read_labels(path: Path) -> dict[str, int]:
    value = read_json(path)
    if not isinstance(value, dict) or not value:
        raise UserError(f"'{path}' must be a JSON object of label names and indices, and not empty")
    try:
        return {name: int(index) for name, index in value.items()}
    except (TypeError, ValueError) as error:
        raise UserError(f"'{path}' must give every label a whole number as its index ({error})") from error


def _read_split(path: Path, labels: dict[str, int], labels_path: Path) -> list[tuple[str, int]]:
    """Clip ids and label indices of one split."""
    entries = read_json(path)
    if not isinstance(entries, list):
        raise UserError(f"'{path}' must be a JSON list of clips, it is a {type(entries).__name__}")
    if not entries:
        raise UserError(f"'{path}' has no clips; a split must not be empty")
    return [_read_entry(entry, f"'{path}', clip {n}", labels, labels_path) for n, entry in enumerate(entries, start=1)]


def _read_entry(entry: Any, where: str, labels: dict[str, int], labels_path: Path) -> tuple[str, int]:
    if not isinstance(entry, dict) or not {"id", "template"} <= entry.keys():
        raise UserError(f"{where} of the list: must be an object with 'id' and 'template', it is {str(entry)[:80]!r}")
    template = str(entry["template"]).replace("[", "").replace("]", "")
    if template not in labels:
        raise UserError(
            f"{where} of the list (id {entry['id']}): template {template!r} is not in '{labels_path}'; "
            "correct it or give the labels that belong to these annotations"
        )
    return str(entry["id"]), labels[template]
