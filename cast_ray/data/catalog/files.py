"""How annotation files are found and read, with a clear message for whatever is wrong with them."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from cast_ray.errors import UserError

__all__ = [
    "find_annotation",
    "index_names",
    "read_class_names",
    "read_csv",
    "read_json",
    "read_lines",
    "seconds",
    "whole_number",
]

NUM_EXAMPLES = 5

# Plain seconds, or hours, minutes and seconds.
TIME = re.compile(r"(?:(\d+):([0-5]\d):(?=[0-5]\d(?:\.|$)))?(\d+(?:\.\d*)?)", re.ASCII)


def find_annotation(folder: Path | str, *names: str) -> Path:
    """The one of `names` that exists in `folder`.

    Raises:
        UserError: the folder or all of the files are missing, or there is more than one of them.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"the annotation folder '{folder}' does not exist; give the folder that holds {names[0]}")
    found = [name for name in names if (folder / name).is_file()]
    if not found:
        raise UserError(f"'{folder}' has no {' or '.join(names)}; give the folder with the official annotation files")
    if len(found) > 1:
        raise UserError(f"'{folder}' has {' and '.join(found)}; keep only the file that is meant")
    return folder / found[0]


def read_json(path: Path) -> Any:
    """The value in a JSON file; `UserError` with file and line if it is none, or holds what is no text."""
    try:
        text = path.read_text(encoding="utf-8")
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(
            f"'{path}' is not valid JSON (line {error.lineno}, column {error.colno}: {error.msg}); "
            "download or write the file again"
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(f"'{path}' is not UTF-8 text ({error}); download or write the file again") from error
    # Half a character in escapes (\ud800) is valid JSON, but no text: it can neither be printed nor stored.
    if "\\ud" in text.lower():
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            bad = ascii(error.object[error.start : error.end])
            raise UserError(f"'{path}' holds {bad}, which is half a character; write the file again") from error
    return value


def read_csv(path: Path, columns: Sequence[str], *, header: bool = True) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield (line number, row) of a CSV file.

    Args:
        path: the file.
        columns: columns that the header must have; without a header, all columns in order.
        header: whether the first line names the columns.

    Raises:
        UserError: a column is missing from the header or is there twice, a row is short or long, or the file is not
            CSV text.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, fieldnames=None if header else columns, strict=True)
            absent = [column for column in columns if column not in (reader.fieldnames or ())]
            if absent:
                raise UserError(f"'{path}' has no column {absent}; its header has {list(reader.fieldnames or ())}")
            repeated = [name for name, count in Counter(reader.fieldnames or ()).items() if count > 1]
            if repeated:
                raise UserError(f"'{path}' has more than one column {repeated}; give every column its own name")
            for row in reader:
                if None in row or None in row.values():
                    raise UserError(
                        f"'{path}', line {reader.line_num}: the row does not have as many fields as "
                        + ("the header" if header else f"there are columns ({', '.join(columns)})")
                    )
                yield reader.line_num, row
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"'{path}' is not a valid CSV file ({error}); download or write the file again") from error


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line number, text without surrounding blanks) of the lines of a text file that are not empty."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"'{path}' is not UTF-8 text ({error}); download or write the file again") from error
    for line, content in enumerate(text.split("\n"), start=1):
        if content.strip():
            yield line, content.strip()


def read_class_names(path: Path) -> tuple[str, ...]:
    """Class names in index order from the columns `id` and `key` of a CSV file, as the EPIC datasets have them."""
    return index_names(
        [
            (whole_number(row["id"], f"'{path}', line {line}: id"), row["key"])
            for line, row in read_csv(path, ("id", "key"))
        ],
        path=path,
    )


def index_names(pairs: Iterable[tuple[int, str]], *, path: Path, first: int = 0) -> tuple[str, ...]:
    """Class names in index order from (index, name) pairs.

    Args:
        pairs: the classes of a file.
        path: the file.
        first: the index from which it counts.

    Raises:
        UserError: the indices are not `first`, `first` + 1 ... once each.
    """
    ordered = sorted(pairs)
    indices = [index for index, _ in ordered]
    expected = range(first, first + len(ordered))
    if indices != list(expected):
        repeated = sorted({index for index in indices if indices.count(index) > 1})
        missing = sorted(set(expected) - set(indices))
        raise UserError(
            f"'{path}' has {len(ordered)} classes, whose indices must be {first} to {expected.stop - 1}, once each; "
            f"missing: {missing[:NUM_EXAMPLES]}, repeated: {repeated[:NUM_EXAMPLES]}"
        )
    return tuple(name for _, name in ordered)


def whole_number(text: str, what: str) -> int:
    """The number in `text`; `UserError` if it is none. `what` names file, line and column."""
    try:
        return int(text)
    except ValueError as error:
        raise UserError(f"{what} is {text!r}; it must be a whole number") from error


def seconds(text: str, what: str) -> float:
    """Seconds from plain seconds ("7.44") or a time ("00:01:07.440"); `UserError` if it is neither.

    Args:
        text: the time.
        what: names file, line and column.
    """
    match = TIME.fullmatch(text.strip())
    if match is None:
        raise UserError(f"{what} is {text!r}; it must be HH:MM:SS.sss or a number of seconds")
    hours, minutes, rest = match.groups()
    return int(hours or 0) * 3600 + int(minutes or 0) * 60 + float(rest)
