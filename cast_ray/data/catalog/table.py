"""Which clips a user's own dataset has, read from two plain CSV files.

Layout: train.csv and validation.csv, each with a header and one row per clip. Column `clip` is the video file's path
below the video folder, with suffix; `start_s` and `stop_s`, if there, are the first and last second of the clip inside
its file (or times HH:MM:SS.sss), empty for its beginning and end. Every other column is a label field, and its cells
are class names::

    clip,verb,noun
    kitchen/0001.mp4,take,cup
    kitchen/0002.mp4,put,cup

The classes of a field are the names in train.csv, in alphabetical order.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path

from cast_ray.data.catalog.entries import Entry, OnSkip, Source, build_manifest, refuse
from cast_ray.data.catalog.files import find_annotation, read_csv, seconds
from cast_ray.data.catalog.videos import VideoFolder, below
from cast_ray.data.manifest import TRAIN, VALIDATION, Manifest
from cast_ray.errors import UserError
from cast_ray.labels import LabelMap

__all__ = ["read_table"]

CLIP, START, STOP = "clip", "start_s", "stop_s"

Rows = list[tuple[int, dict[str, str]]]
"""Line number and row."""


def read_table(videos: Path | str, annotations: Path | str, *, on_skip: OnSkip = refuse) -> Manifest:
    """Read a dataset in the plain layout of this module; a clip's id is its path, with its seconds if it is a part.

    Args:
        videos: folder below which the video files lie.
        annotations: folder with train.csv and validation.csv.
        on_skip: what to do with clips that cannot be used; see `cast_ray.data.catalog.entries.OnSkip`.

    Raises:
        UserError: a folder, file or video is missing, a path leads out of the folder, a file is not what it should be,
            a split is empty, the two files do not agree on fields and classes, or a clip occurs twice.
    """
    folder = VideoFolder.at(videos)
    paths = {split: find_annotation(annotations, f"{split}.csv") for split in (TRAIN, VALIDATION)}
    tables = {split: _read_rows(path) for split, path in paths.items()}
    fields = {split: [name for name in rows[0][1] if name not in (CLIP, START, STOP)] for split, rows in tables.items()}
    if not fields[TRAIN]:
        raise UserError(f"'{paths[TRAIN]}' has no label column beside '{CLIP}'; add one, such as 'label'")
    if sorted(fields[TRAIN]) != sorted(fields[VALIDATION]):
        raise UserError(
            f"'{paths[TRAIN]}' has the label columns {fields[TRAIN]}, '{paths[VALIDATION]}' has {fields[VALIDATION]}; "
            "give both the same"
        )
    label_map = LabelMap({field: _classes(tables[TRAIN], field, paths[TRAIN]) for field in fields[TRAIN]})
    # Each folder is listed once, which is faster than asking for files.
    listed = functools.cache(lambda parent: _files_in(os.path.join(folder.path, parent)))

    def entry(line: int, row: dict[str, str], path: Path) -> Entry:
        where = f"'{path}', line {line}"
        file = below(row[CLIP], where)
        times = (seconds(row[column], f"{where}: {column}") if row.get(column) else None for column in (START, STOP))
        start_s, stop_s = next(times) or None, next(times)
        whole = start_s is None and stop_s is None
        return Entry(
            place=f"line {line}",
            clip_id=str(file) if whole else f"{file} {_plain(start_s or 0.0)}-{_plain(stop_s)}",
            file=os.path.join(folder.path, file) if file.name in listed(file.parent) else None,
            labels=tuple(row[field] for field in label_map.fields),
            segment=(start_s, stop_s),
            cut=whole,
        )

    sources = [
        Source(path=path, split=split, entries=[entry(line, row, path) for line, row in tables[split]])
        for split, path in paths.items()
    ]
    return build_manifest(sources, folder, label_map, on_skip)


def _read_rows(path: Path) -> Rows:
    rows = list(read_csv(path, (CLIP,)))
    if not rows:
        raise UserError(f"'{path}' has no clips; a split must not be empty")
    return rows


def _classes(rows: Rows, field: str, path: Path) -> tuple[str, ...]:
    for line, row in rows:
        if not row[field]:
            raise UserError(f"'{path}', line {line}: {field} is empty; give every clip a class name")
    return tuple(sorted({row[field] for _, row in rows}))


def _files_in(folder: str) -> frozenset[str]:
    """Names of the files in a folder; none if it does not exist."""
    if not os.path.isdir(folder):
        return frozenset()
    with os.scandir(folder) as entries:
        return frozenset(entry.name for entry in entries if entry.is_file())


def _plain(value: float | None) -> str:
    """The same text for the same second, however it was written; empty for the end of the file."""
    return "" if value is None else f"{value:.15g}"
