"""Which video files are meant by a folder, a pattern, a file, or a table of paths.

A list of paths is kept as an Arrow table: a million of them need about 100 MB, and no file is opened to make it.
"""

from __future__ import annotations

import functools
import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from cast_ray.data.catalog.videos import VIDEO_SUFFIXES
from cast_ray.data.manifest import escaped
from cast_ray.data.storage import absolute, filesystem, joined, retried
from cast_ray.errors import UserError

__all__ = ["TABLES", "Listing", "list_clips", "matches"]

TABLES = (".csv", ".parquet")
PATTERN = re.compile(r"[*?\[]")
WILDCARD = re.compile(r"(\*|\?|\[[^]]+\])")
ANY_FOLDERS = r"(?:[^/]+/)*"
MOST_EXAMPLES = 3


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The clips that are meant."""

    clips: pa.Table
    """`clip_id`, `uri`, `start_s`, `stop_s` (null: begin or end of the file), in an order that is always the same."""
    root: str
    """Path or URI of the storage that the files lie on."""
    left_out: Counter[str]
    """Why files in the folder are not among them, and how many."""


def list_clips(source: str) -> Listing:
    """The clips of a source.

    Args:
        source: path or URI of a folder, in which videos are looked for at any depth; a pattern, in which `*` and `?`
            stand for anything within a name and `**` for any folders; one video file; or a .csv or .parquet table with
            a column `path`, and perhaps `start_s`, `stop_s` (seconds) and `clip_id`, whose relative paths count from
            its own folder.

    Raises:
        UserError: there is no such source, it has no videos, or a table is not as above.
    """
    source = absolute(source)
    storage, path = filesystem(source)
    kind = retried(lambda: storage.get_file_info(path), what=source).type
    if kind == pafs.FileType.Directory:
        return _below(source, pattern=None)
    if kind == pafs.FileType.NotFound and PATTERN.search(_without_options(source)):
        return _matching(source)
    if kind != pafs.FileType.File:
        raise UserError(f"'{source}' does not exist; give a folder, a pattern, a video file, or a table of paths")
    if path.lower().endswith(TABLES):
        return _from_table(source)
    return Listing(clips=_clips([path.rpartition("/")[2]], [source]), root=source, left_out=Counter())


def _without_options(source: str) -> str:
    """A URI without what follows its path."""
    return source.partition("?")[0] if "://" in source else source


def _matching(source: str) -> Listing:
    """The videos that a pattern matches; looked for below its last folder without a wildcard."""
    place = _without_options(source)
    fixed = PATTERN.split(place, maxsplit=1)[0].rpartition("/")[0]
    if fixed.endswith(":/") or not fixed:
        raise UserError(f"'{source}' has a wildcard too far in front; give the name of the bucket or of a folder")
    return _below(fixed + source.removeprefix(place), pattern=place.removeprefix(fixed).strip("/"))


def _below(root: str, pattern: str | None) -> Listing:
    """The videos below a folder, sorted by path."""
    storage, _ = filesystem(root)
    found = _walk_local(root) if isinstance(storage, pafs.LocalFileSystem) else _walk_remote(root)
    names: list[str] = []
    left_out: Counter[str] = Counter()
    for name in found:
        if pattern is not None and not matches(name, pattern):
            continue
        if escaped(name) != name:
            left_out["file names that are not UTF-8 text"] += 1
        elif not name.lower().endswith(VIDEO_SUFFIXES):
            left_out["files whose names do not end as those of videos"] += 1
        else:
            names.append(name)
    if not names:
        what = "has no videos" if pattern is None else f"has no videos that match '{pattern}'"
        raise UserError(f"'{root}' {what} (files that end in {', '.join(VIDEO_SUFFIXES[:5])} ...); see the path")
    names.sort()
    remote = "://" in root
    uris = [joined(root, quote(name) if remote else name) for name in names]
    return Listing(clips=_clips(names, uris), root=root, left_out=left_out)


def _walk_local(root: str) -> Iterator[str]:
    """Paths below a folder, hidden ones left out; links to folders are not followed."""
    base = filesystem(root)[1]
    if not os.path.isdir(base):
        raise UserError(f"'{root}' does not exist; see the path")
    for folder, folders, files in os.walk(base):
        folders[:] = [name for name in folders if not name.startswith(".")]
        below = os.path.relpath(folder, base)
        for name in files:
            if not name.startswith("."):
                yield name if below == "." else f"{below}/{name}"


def _walk_remote(root: str) -> Iterator[str]:
    """Keys below a prefix, hidden ones left out."""
    storage, base = filesystem(root)
    selector = pafs.FileSelector(base, recursive=True)
    try:
        infos = retried(lambda: storage.get_file_info(selector), what=root)
    except UserError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise UserError(f"'{root}' does not exist; see the URI") from error
        raise
    for info in infos:
        name = info.path.removeprefix(f"{base.rstrip('/')}/")
        if info.type == pafs.FileType.File and not any(part.startswith(".") for part in name.split("/")):
            yield name


def matches(path: str, pattern: str) -> bool:
    """Whether a path matches a pattern, both below the same folder; at the end, `**` stands for any file at any depth.

    Raises:
        UserError: a [...] of the pattern means nothing.
    """
    return _expression(pattern).fullmatch(path) is not None


@functools.lru_cache(maxsize=1)
def _expression(pattern: str) -> re.Pattern[str]:
    *folders, last = pattern.split("/")
    text = "".join(ANY_FOLDERS if part == "**" else f"{_name_expression(part)}/" for part in folders)
    text += f"{ANY_FOLDERS}[^/]+" if last == "**" else _name_expression(last)
    try:
        return re.compile(text)
    except re.error as error:
        raise UserError(f"'{pattern}' is no pattern: {error}; use *, ?, [abc] and **") from error


def _name_expression(pattern: str) -> str:
    """Unlike that of fnmatch, it keeps wildcards within a name."""
    text = ""
    for part in WILDCARD.split(pattern):
        if part in ("*", "?"):
            text += "[^/]*" if part == "*" else "[^/]"
        elif WILDCARD.fullmatch(part):
            inner = part[1:-1].replace("\\", r"\\")
            text += f"[^/{inner[1:]}]" if inner.startswith("!") else f"[{inner}]"
        else:
            text += re.escape(part)
    return text


def _from_table(source: str) -> Listing:
    table = _read_table(source)
    if "path" not in table.column_names:
        raise UserError(f"'{source}' has the columns {table.column_names}, but no 'path'; name the column of paths so")
    if not table.num_rows:
        raise UserError(f"'{source}' has no rows; give a table with paths of videos")
    paths = _text(table, "path", source)
    starts, stops = (_seconds(table, name, source) for name in ("start_s", "stop_s"))
    _check_seconds(paths, starts, stops, source)
    place = _without_options(source)
    folder = place.rpartition("/")[0] + source.removeprefix(place)
    uris = [path if "://" in path or path.startswith("/") else joined(folder, path) for path in paths]
    ids = _text(table, "clip_id", source) if "clip_id" in table.column_names else _ids(paths, starts, stops)
    repeated = [name for name, count in Counter(ids).items() if count > 1]
    if repeated:
        raise UserError(
            f"{len(repeated)} clips come more than once in '{source}', for example {repeated[:MOST_EXAMPLES]}; remove "
            "the repeated rows, or give a column clip_id"
        )
    clips = _clips(ids, uris, starts, stops)
    remote = [uri for uri in uris if "://" in uri]
    return Listing(clips=clips, root=remote[0] if remote else folder, left_out=Counter())


def _read_table(source: str) -> pa.Table:
    storage, path = filesystem(source)

    def read() -> pa.Table:
        with storage.open_input_file(path) as file:
            if path.lower().endswith(".csv"):
                # A path of digits alone is a path.
                types = {"path": pa.string(), "clip_id": pa.string()}
                return pyarrow.csv.read_csv(file, convert_options=pyarrow.csv.ConvertOptions(column_types=types))
            return pq.read_table(file)

    try:
        return retried(read, what=source)
    except pa.ArrowException as error:
        raise UserError(f"'{source}' cannot be read as a table: {error}; give a .csv or .parquet file") from error


def _text(table: pa.Table, name: str, source: str) -> list[str]:
    column = table[name]
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        raise UserError(f"column '{name}' of '{source}' has the type {column.type}; give text")
    values = column.to_pylist()
    empty = [row for row, value in enumerate(values) if not value]
    if empty:
        raise UserError(
            f"'{source}' has {len(empty)} rows without a {name}, the first is row {empty[0] + 1}; fill it in"
        )
    return values


def _seconds(table: pa.Table, name: str, source: str) -> pa.ChunkedArray:
    if name not in table.column_names:
        return pa.chunked_array([pa.nulls(table.num_rows, pa.float64())])
    try:
        return table[name].cast(pa.float64())
    except pa.ArrowException as error:
        raise UserError(f"column '{name}' of '{source}' has no seconds: {error}; give numbers") from error


def _check_seconds(paths: list[str], starts: pa.ChunkedArray, stops: pa.ChunkedArray, source: str) -> None:
    """Raise `UserError` for the first clip whose seconds are none, or in the wrong order."""
    first, last = pc.fill_null(starts, 0.0).to_numpy(), pc.fill_null(stops, math.inf).to_numpy()
    for row in np.flatnonzero(~((first >= 0) & (first < last)))[:1].tolist():  # NaN compares as False
        raise UserError(
            f"'{source}': the clip of {paths[row]} begins at {starts[row]} s and ends at {stops[row]} s; give a "
            "start_s from 0 on, and a stop_s after it, or leave them empty for the begin and the end of the file"
        )


def _ids(paths: list[str], starts: pa.ChunkedArray, stops: pa.ChunkedArray) -> list[str]:
    """The path, and for a part of a file its seconds as in a media fragment."""
    spans = zip(paths, starts.to_pylist(), stops.to_pylist(), strict=True)
    return [
        path if start is None and stop is None else f"{path}#t={_text_of(start or 0)},{_text_of(stop)}"
        for path, start, stop in spans
    ]


def _text_of(seconds: float | None) -> str:
    """With all digits, as clips may be a few milliseconds apart."""
    return "" if seconds is None else repr(seconds).removesuffix(".0")


def _clips(
    ids: Iterable[str],
    uris: Iterable[str],
    starts: pa.ChunkedArray | None = None,
    stops: pa.ChunkedArray | None = None,
) -> pa.Table:
    names = pa.array(ids, pa.string())
    nothing = pa.nulls(len(names), pa.float64())
    return pa.table(
        {
            "clip_id": names,
            "uri": pa.array(uris, pa.string()),
            "start_s": nothing if starts is None else starts,
            "stop_s": nothing if stops is None else stops,
        }
    )
