"""Which clips a dataset has, read from the two kinds of CSV files that the CAST authors' code takes.

Layout (README of https://github.com/KHU-VLL/CAST): train.csv and val.csv without a header, with either one
"<narration id>,<verb>,<noun>" per line, or one "<video file> <label>", as VideoMAE and its relatives have it. Labels
are indices. The videos lie in one folder or, for Kinetics-400, in train and val. A file may be called by its bare name,
by a path below the folder or the end of one, or by an absolute path, as such lists mostly have it, also of another
machine: then the file is the one whose whole path below the folder the absolute path ends in.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from cast_ray.data.catalog.entries import Entry, OnSkip, Source, build_manifest, refuse
from cast_ray.data.catalog.files import find_annotation, read_lines, whole_number
from cast_ray.data.catalog.videos import DEPTH, VIDEO_SUFFIXES, VideoFolder, below
from cast_ray.data.manifest import TRAIN, VALIDATION, Manifest
from cast_ray.errors import UserError
from cast_ray.labels import LABEL, NOUN, VERB, LabelMap

__all__ = ["read_cast_csv"]

FILES = {TRAIN: ("train.csv",), VALIDATION: ("val.csv", "validation.csv")}
ELSEWHERE = "an absolute path that ends like no file in the video folder (give a path below the video folder)"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Row:
    """One line of a file."""

    line: int
    path: PurePosixPath
    """Of the clip's file, without suffix."""
    labels: tuple[int, ...]


def read_cast_csv(
    videos: Path | str,
    annotations: Path | str,
    *,
    label_map: LabelMap | None = None,
    on_skip: OnSkip = refuse,
) -> Manifest:
    """Read a dataset in one of the layouts of the CAST authors.

    Args:
        videos: folder below which the clips' files lie.
        annotations: folder with train.csv and val.csv.
        label_map: class names, which these files do not have; None: the indices are the names.
        on_skip: what to do with clips that cannot be used; see `cast_ray.data.catalog.entries.OnSkip`.

    Raises:
        UserError: a folder, file or video is missing, a path leads out of the folder, a file is not what it should be,
            the two files are of different kinds, a label is outside the label map, or a split is empty.
    """
    paths = {split: find_annotation(annotations, *names) for split, names in FILES.items()}
    rows = {split: _read_rows(path) for split, path in paths.items()}
    folders = (len(row.path.parent.parts) for of_split in rows.values() for row in of_split)
    folder = VideoFolder.scan(videos, depth=max([DEPTH, *folders]))
    sources = [
        Source(path=paths[split], split=split, entries=[_entry(row, folder) for row in of_split])
        for split, of_split in rows.items()
    ]
    kinds = {len(entry.labels) for source in sources for entry in source.entries}
    if len(kinds) > 1:
        raise UserError(
            f"'{sources[0].path}' and '{sources[1].path}' are not of one kind: there are lines '<id>,<verb>,<noun>' "
            "and '<file> <label>'; give all lines the same form"
        )
    fields = (LABEL,) if kinds == {1} else (VERB, NOUN)
    if label_map is None:
        label_map = _numbered(sources, fields)
    elif label_map.fields != fields:
        raise UserError(
            f"the label map has the fields {list(label_map.fields)}, but '{sources[0].path}' has {list(fields)}; "
            "give the label map that belongs to these annotations"
        )
    return build_manifest(sources, folder, label_map, on_skip)


def _read_rows(path: Path) -> list[_Row]:
    rows = []
    for line, text in read_lines(path):
        where = f"'{path}', line {line}"
        name, *labels = text.split(",") if "," in text else text.rsplit(maxsplit=1)
        if len(labels) != (2 if "," in text else 1):
            raise UserError(f"{where}: it is {text[:80]!r}; it must be '<id>,<verb>,<noun>' or '<file> <label>'")
        file = below(name.strip(), where, absolute=True)
        rows.append(
            _Row(
                line=line,
                path=file.with_suffix("") if file.suffix.lower() in VIDEO_SUFFIXES else file,
                labels=tuple(whole_number(label, f"{where}: the label") for label in labels),
            )
        )
    return rows


def _entry(row: _Row, folder: VideoFolder) -> Entry:
    file = problem = None
    if row.path.is_absolute():
        file = folder.find(str(row.path))
        problem = ELSEWHERE if file is None and folder.inside(row.path) is None else None
    return Entry(
        place=f"line {row.line}",
        clip_id=str(row.path),
        names=() if row.path.is_absolute() else (str(row.path),),
        file=file,
        labels=row.labels,
        problem=problem,
    )


def _numbered(sources: list[Source], fields: tuple[str, ...]) -> LabelMap:
    """Label map whose names are the indices, up to the largest that occurs."""
    rows = [entry.labels for source in sources for entry in source.entries]
    largest = [max(int(row[column]) for row in rows) for column in range(len(fields))]
    return LabelMap({field: tuple(map(str, range(last + 1))) for field, last in zip(fields, largest, strict=True)})
