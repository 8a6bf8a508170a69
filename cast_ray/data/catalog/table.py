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

import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from cast_ray.data.catalog.files import NUM_EXAMPLES, below, find_annotation, read_csv, seconds
from cast_ray.data.manifest import TRAIN, VALIDATION, Clip, Manifest
from cast_ray.errors import UserError
from cast_ray.labels import LabelMap

__all__ = ["read_table"]

CLIP, START, STOP = "clip", "start_s", "stop_s"

Rows = list[tuple[int, dict[str, str]]]
"""Line number and row."""


def read_table(videos: Path | str, annotations: Path | str) -> Manifest:
    """Read a dataset in the plain layout of this module.

    Args:
        videos: folder below which the video files lie.
        annotations: folder with train.csv and validation.csv.

    Raises:
        UserError: a folder, file or video is missing, a path leads out of the folder, a file is not what it should be,
            a split is empty, the two files do not agree on fields and classes, or a clip occurs twice.
    """
    if not os.path.isdir(videos):
        raise UserError(f"the video folder '{videos}' does not exist; give the folder that holds the clips' files")
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
    clips: list[Clip] = []
    for split, rows in tables.items():
        clips += _clips(rows, split, os.path.abspath(videos), label_map, paths[split])
    return Manifest(clips=tuple(clips), label_map=label_map)


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


def _clips(rows: Rows, split: str, videos: str, label_map: LabelMap, path: Path) -> list[Clip]:
    indices = {field: {name: index for index, name in enumerate(names)} for field, names in label_map.names.items()}
    files = [below(row[CLIP], f"'{path}', line {line}") for line, row in rows]
    _require_files(files, videos, path)
    clips = []
    for file, (line, row) in zip(files, rows, strict=True):
        for field, known in indices.items():
            if row[field] not in known:
                raise UserError(
                    f"'{path}', line {line}: {field} {row[field]!r} does not occur in {TRAIN}.csv; correct it, or give "
                    "the class training clips"
                )
        start_s, stop_s = (
            seconds(row[column], f"'{path}', line {line}: {column}") if row.get(column) else None
            for column in (START, STOP)
        )
        if stop_s is not None and stop_s <= (start_s or 0.0):
            raise UserError(f"'{path}', line {line}: {STOP} {stop_s} is not after {START} {start_s or 0.0}")
        whole = start_s is None and stop_s is None
        clips.append(
            Clip(
                clip_id=str(file) if whole else f"{file} {row.get(START, '')}-{row.get(STOP, '')}",
                uri=os.path.join(videos, file),
                labels=tuple(known[row[field]] for field, known in indices.items()),
                split=split,
                start_s=start_s,
                stop_s=stop_s,
            )
        )
    return clips


def _require_files(clips: Iterable[PurePosixPath], videos: str, path: Path) -> None:
    """Raise `UserError` unless all files are there; lists every folder once, which is faster than asking for files."""
    present: dict[PurePosixPath, frozenset[str]] = {}
    missing = []
    for clip in clips:
        if clip.parent not in present:
            folder = os.path.join(videos, clip.parent)
            present[clip.parent] = frozenset(os.listdir(folder) if os.path.isdir(folder) else ())
        if clip.name not in present[clip.parent]:
            missing.append(str(clip))
    if missing:
        raise UserError(
            f"'{path}' names {len(missing)} files that are not below '{videos}': {', '.join(missing[:NUM_EXAMPLES])}"
            f"{' ...' if len(missing) > NUM_EXAMPLES else ''}; add them, or correct the rows"
        )
