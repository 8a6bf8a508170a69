"""Which clips Something-Something-V2 has, read from its official JSON files.

Layout (https://www.qualcomm.com/developer/software/something-something-v-2-dataset): labels.json maps the template
without brackets to its index as a string; train.json and validation.json are lists of objects with `id` and
`template`, the latter with brackets around its placeholders; a clip's video is <id>.webm (or converted, <id>.mp4).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cast_ray.data.catalog.entries import Entry, OnSkip, Source, build_manifest, refuse
from cast_ray.data.catalog.files import find_annotation, index_names, read_json
from cast_ray.data.catalog.videos import VideoFolder
from cast_ray.data.manifest import TRAIN, VALIDATION, Manifest
from cast_ray.errors import UserError
from cast_ray.labels import LABEL, LabelMap

__all__ = ["read_ssv2"]


def read_ssv2(videos: Path | str, annotations: Path | str, *, on_skip: OnSkip = refuse) -> Manifest:
    """Read a dataset in the layout of Something-Something-V2; the one label is the template.

    Args:
        videos: folder with one video file per clip.
        annotations: folder with labels.json, train.json and validation.json (also accepted with the prefix
            "something-something-v2-" of the first release).
        on_skip: what to do with clips that cannot be used; see `cast_ray.data.catalog.entries.OnSkip`.

    Raises:
        UserError: a folder, file or video is missing, a file is not what it should be, a template is not among the
            labels, or a split is empty.
    """
    folder = VideoFolder.scan(videos)
    labels_path = _find(annotations, "labels")
    labels = _read_labels(labels_path)
    names = index_names([(index, name) for name, index in labels.items()], path=labels_path)
    sources = [_read_split(_find(annotations, split), split, labels, labels_path) for split in (TRAIN, VALIDATION)]
    return build_manifest(sources, folder, LabelMap({LABEL: names}), on_skip)


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


def _read_split(path: Path, split: str, labels: dict[str, int], labels_path: Path) -> Source:
    values = read_json(path)
    if not isinstance(values, list):
        raise UserError(f"'{path}' must be a JSON list of clips, it is a {type(values).__name__}")
    entries = [
        _read_entry(value, f"'{path}'", f"clip {n} of the list", labels, labels_path)
        for n, value in enumerate(values, start=1)
    ]
    return Source(path=path, split=split, entries=entries)


def _read_entry(value: Any, file: str, place: str, labels: dict[str, int], labels_path: Path) -> Entry:
    if not isinstance(value, dict) or not {"id", "template"} <= value.keys():
        raise UserError(f"{file}, {place}: must be an object with 'id' and 'template', it is {str(value)[:80]!r}")
    template = str(value["template"]).replace("[", "").replace("]", "")
    if template not in labels:
        raise UserError(
            f"{file}, {place} (id {value['id']}): template {template!r} is not in '{labels_path}'; "
            "correct it or give the labels that belong to these annotations"
        )
    clip_id = str(value["id"])
    return Entry(place=place, clip_id=clip_id, names=(clip_id,), labels=(labels[template],))
