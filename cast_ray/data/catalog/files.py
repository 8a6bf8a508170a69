"""How annotation files and video folders are found and read, with a clear message for whatever is wrong with them."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cast_ray.errors import UserError

__all__ = ["VideoFolder", "find_annotation", "index_names", "read_csv", "read_json"]

VIDEO_SUFFIXES = (".mp4", ".webm", ".mkv", ".mov", ".avi")
"""In order of preference where a folder holds the same clip twice."""
NUM_EXAMPLES = 5


@dataclass(frozen=True, kw_only=True)
class VideoFolder:
    """The video files that lie directly in one folder."""

    path: str
    names: dict[str, str]
    """File name without suffix -> file name."""
    subfolders: frozenset[str]

    @classmethod
    def scan(cls, path: Path | str) -> VideoFolder:
        """List the folder once: asking for each of 220,000 files by itself takes minutes on a network file system.

        Raises:
            UserError: there is no such folder.
        """
        if not os.path.isdir(path):
            raise UserError(f"the video folder '{path}' does not exist; give the folder that holds the clips' files")
        names: dict[str, str] = {}
        subfolders = set()
        with os.scandir(path) as entries:
            for entry in entries:
                stem, suffix = os.path.splitext(entry.name)
                if suffix.lower() in VIDEO_SUFFIXES:
                    names[stem] = min(names.get(stem, entry.name), entry.name, key=_preference)
                elif entry.is_dir():
                    subfolders.add(entry.name)
        return cls(path=os.path.abspath(path), names=names, subfolders=frozenset(subfolders))

    def uri(self, stem: str) -> str:
        return os.path.join(self.path, self.names[stem])

    def require(self, stems: Sequence[str], *, annotations: Path) -> None:
        """Raise `UserError` if a file is missing for any of `stems`; `annotations` is the file that names them."""
        missing = [stem for stem in stems if stem not in self.names]
        if missing:
            raise UserError(
                f"'{annotations}' names {len(missing)} clips of {len(stems)} that have no video file in '{self.path}': "
                f"{', '.join(missing[:NUM_EXAMPLES])}{' ...' if len(missing) > NUM_EXAMPLES else ''}; "
                f"add the files ({', '.join(VIDEO_SUFFIXES)}) or remove the clips from the annotations"
            )


def find_annotation(folder: Path | str, *names: str) -> Path:
    """The first of `names` that exists in `folder`.

    Raises:
        UserError: the folder or all of the files are missing.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"the annotation folder '{folder}' does not exist; give the folder that holds {names[0]}")
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise UserError(f"'{folder}' has no {' or '.join(names)}; give the folder with the official annotation files")


def read_json(path: Path) -> Any:
    """The value in a JSON file; `UserError` with file and line if it is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise UserError(
            f"'{path}' is not valid JSON (line {error.lineno}, column {error.colno}: {error.msg}); "
            "download or write the file again"
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(f"'{path}' is not UTF-8 text ({error}); download or write the file again") from error


def read_csv(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield (line number, row) of a CSV file with a header that has at least `columns`.

    Raises:
        UserError: a column is missing from the header, a row is short or long, or the file is not CSV text.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file, strict=True)
            absent = [column for column in columns if column not in (reader.fieldnames or ())]
            if absent:
                raise UserError(f"'{path}' has no column {absent}; its header has {list(reader.fieldnames or ())}")
            for row in reader:
                if None in row or None in row.values():
                    raise UserError(
                        f"'{path}', line {reader.line_num}: the row does not have as many fields as the header"
                    )
                yield reader.line_num, row
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"'{path}' is not a valid CSV file ({error}); download or write the file again") from error


def index_names(pairs: Iterable[tuple[int, str]], *, path: Path) -> tuple[str, ...]:
    """Class names in index order from (index, name) pairs; `UserError` if the indices are not 0, 1, 2 ... once each."""
    ordered = sorted(pairs)
    indices = [index for index, _ in ordered]
    if indices != list(range(len(ordered))):
        repeated = sorted({index for index in indices if indices.count(index) > 1})
        missing = sorted(set(range(len(ordered))) - set(indices))
        raise UserError(
            f"'{path}' has {len(ordered)} classes, whose indices must be 0 to {len(ordered) - 1}, once each; "
            f"missing: {missing[:NUM_EXAMPLES]}, repeated: {repeated[:NUM_EXAMPLES]}"
        )
    return tuple(name for _, name in ordered)


def _preference(name: str) -> tuple[int, str]:
    return VIDEO_SUFFIXES.index(os.path.splitext(name)[1].lower()), name
