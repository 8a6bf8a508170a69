"""How the parts of predictions lie in a folder on any storage, so that a killed evaluation goes on.

Layout::

    evaluation.json                     what the predictions are made of; another evaluation does not mix with them
    part-000000.parquet ...             the predictions; each file is complete when it is visible
    _unreadable/part-000000.parquet     clips of that part without a prediction, with the reason; only if there are any

The list of a part's unreadable clips is written before the part, so that a part that is there has its list; a list
without its part is left over from a killed process, and means nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from cast_ray.data.storage import PARTIAL, check_writable, filesystem, joined, retried, written_whole
from cast_ray.errors import UserError
from cast_ray.evaluation.prediction_files import FILE_NAME, HIDDEN, MARK, read_mark

__all__ = ["UNREADABLE", "check_parts", "open_folder", "read_unreadable", "remove_partial", "write_part"]

UNREADABLE = "_unreadable"
"""Folder of the tables of clips without a prediction."""


def open_folder(folder: str, mark: Mapping[str, Any], *, replace: bool = False) -> frozenset[str]:
    """Make the folder an evaluation's, or find what an earlier process of it has finished.

    Args:
        folder: path or URI.
        mark: what the predictions depend on; plain values.
        replace: remove predictions that are there and depend on something else, instead of refusing.

    Returns:
        Names of the finished parts.

    Raises:
        UserError: the folder cannot be written, or holds something else.
    """
    storage, path = filesystem(folder)
    mark = json.loads(json.dumps(mark))  # as it will be read

    def look() -> tuple[pafs.FileType, bytes | None, frozenset[str]]:
        here, marked = storage.get_file_info([path, f"{path}/{MARK}"])
        text = None
        if marked.type == pafs.FileType.File:
            with storage.open_input_file(marked.path) as source:
                text = source.read()
        return here.type, text, _names(storage, path) if here.type == pafs.FileType.Directory else frozenset()

    kind, text, names = retried(look, what=folder)
    there = None if text is None else read_mark(text, folder)
    if there == mark:
        return names
    if replace and kind == pafs.FileType.File:
        retried(lambda: _delete(storage, path), what=folder)
    elif replace and there is not None:
        retried(lambda: _empty(storage, path), what=folder)
    else:
        _check_free(folder, kind, names, there, mark)
    check_writable(folder)

    def write() -> None:
        with written_whole(storage, f"{path}/{MARK}") as sink:
            sink.write(json.dumps(mark, indent=2).encode())

    retried(write, what=joined(folder, MARK))
    return frozenset()


def check_parts(folder: str, names: Sequence[str]) -> None:
    """Raise `UserError` unless all parts are there."""
    storage, path = filesystem(folder)
    there = retried(lambda: _names(storage, path), what=folder)
    missing = [name for name in names if name not in there]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(names)} parts are not in '{folder}', the first is {missing[0]}, though all clips "
            "were predicted; start the same command again, which makes them"
        )


def write_part(folder: str, name: str, table: pa.Table, unreadable: pa.Table) -> None:
    """Write one part, and before it its unreadable clips; files appear when they are complete.

    A list that a killed process has left is replaced, or removed if there are none.

    A fault of the storage is waited for.

    Raises:
        UserError: no space left, or the storage does not recover.
    """
    storage, path = filesystem(folder)

    def write(file: str, content: pa.Table) -> None:
        with written_whole(storage, file) as sink:
            pq.write_table(content, sink, compression="zstd", use_dictionary=False)

    def write_list() -> None:
        if unreadable.num_rows:
            storage.create_dir(f"{path}/{UNREADABLE}", recursive=True)
            write(f"{path}/{UNREADABLE}/{name}", unreadable)
        else:
            _delete(storage, f"{path}/{UNREADABLE}/{name}")

    retried(write_list, what=joined(folder, UNREADABLE, name))
    retried(lambda: write(f"{path}/{name}", table), what=joined(folder, name))


def read_unreadable(place: str) -> list[tuple[str, str]]:
    """Clip id and reason of the clips of finished parts for which an evaluation has no prediction.

    Args:
        place: path or URI of a run, or of a folder of predictions; a single file has no such list.
    """
    storage, path = filesystem(place)
    inside = f"{path}/{FILE_NAME}"
    if retried(lambda: storage.get_file_info(inside), what=place).type == pafs.FileType.Directory:
        path = inside

    def read(name: str) -> list[tuple[str, str]]:
        with storage.open_input_file(f"{path}/{UNREADABLE}/{name}") as source:
            table = pq.read_table(source, columns=["clip_id", "reason"])
        return list(zip(table["clip_id"].to_pylist(), table["reason"].to_pylist(), strict=True))

    lists, parts = retried(lambda: (_names(storage, f"{path}/{UNREADABLE}"), _names(storage, path)), what=place)
    rows: list[tuple[str, str]] = []
    for name in sorted(lists & parts):
        rows += retried(partial(read, name), what=joined(place, UNREADABLE, name))
    return rows


def remove_partial(folder: str) -> None:
    """Remove what killed processes have left of files; not while another one may write."""
    storage, path = filesystem(folder)
    for info in retried(lambda: storage.get_file_info(pafs.FileSelector(path, recursive=True)), what=folder):
        if info.path.endswith(PARTIAL):
            with suppress(OSError):
                storage.delete_file(info.path)


def _names(storage: pafs.FileSystem, path: str) -> frozenset[str]:
    """What lies in a folder, without hidden files and those that are still being written."""
    names = [info.base_name for info in storage.get_file_info(pafs.FileSelector(path, allow_not_found=True))]
    return frozenset(name for name in names if not name.startswith(HIDDEN) and not name.endswith(PARTIAL))


def _delete(storage: pafs.FileSystem, file: str) -> None:
    """May be done twice."""
    if storage.get_file_info(file).type == pafs.FileType.File:
        storage.delete_file(file)


def _empty(storage: pafs.FileSystem, path: str) -> None:
    """Remove what is in a folder of predictions: parts, then their lists; the mark stays until another replaces it.

    So a kill leaves at any moment what is known to be an incomplete evaluation.
    """
    infos = storage.get_file_info(pafs.FileSelector(path))
    for info in sorted(infos, key=lambda info: info.base_name.startswith(HIDDEN)):
        if info.type == pafs.FileType.Directory:
            storage.delete_dir(info.path)
        elif info.base_name != MARK:
            _delete(storage, info.path)


def _check_free(
    folder: str, kind: pafs.FileType, names: frozenset[str], there: dict[str, Any] | None, mark: Mapping[str, Any]
) -> None:
    """Raise `UserError` if something else is in the place of the folder."""
    if kind == pafs.FileType.File:
        raise UserError(f"'{folder}' is a file; predictions are a folder of parts, so give another name, or remove it")
    if there is not None:
        differing = [
            f"{name} {there.get(name)} instead of {mark.get(name)}"
            for name in dict.fromkeys([*mark, *there])
            if there.get(name) != mark.get(name)
        ]
        raise UserError(
            f"'{folder}' holds predictions of another evaluation ({', '.join(differing)}); give another folder, or "
            "remove that one"
        )
    if names:
        raise UserError(
            f"'{folder}' is not empty and has no {MARK}: it is no folder of predictions that can be continued; give a "
            "new folder"
        )
