"""How the parts of predictions lie in a folder on any storage, so that a killed evaluation goes on.

Layout::

    evaluation.json                     what the predictions are made of; another evaluation does not mix with them
    part-000000.parquet ...             the predictions; each file is complete when it is visible
    _unreadable/part-000000.parquet     clips of that part without a prediction, with the reason; only if there are any

The list of a part's unreadable clips is written before the part, so that a part that is there has its list.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from cast_ray.data.storage import PARTIAL, check_writable, filesystem, joined, retried, written_whole
from cast_ray.errors import UserError
from cast_ray.evaluation.prediction_files import FILE_NAME, MARK

__all__ = ["UNREADABLE", "absolute", "open_folder", "read_unreadable", "remove_partial", "write_part"]

UNREADABLE = "_unreadable"
"""Folder of the tables of clips without a prediction."""


def absolute(place: str) -> str:
    """The path or URI without what depends on this process."""
    return place if "://" in place else str(Path(place).expanduser().absolute())


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
        infos = storage.get_file_info(pafs.FileSelector(path)) if here.type == pafs.FileType.Directory else []
        names = (info.base_name for info in infos)
        return here.type, text, frozenset(name for name in names if name[0] not in "._" and not name.endswith(PARTIAL))

    kind, text, names = retried(look, what=folder)
    there = _read_mark(text, folder)
    if there == mark:
        return names
    if replace and kind == pafs.FileType.File:
        storage.delete_file(path)
    elif replace and there is not None:
        storage.delete_dir_contents(path)
    else:
        _check_free(folder, kind, names, there, mark)
    check_writable(folder)
    with written_whole(storage, f"{path}/{MARK}") as sink:
        sink.write(json.dumps(mark, indent=2).encode())
    return frozenset()


def write_part(folder: str, name: str, table: pa.Table, unreadable: pa.Table) -> None:
    """Write one part, and before it its unreadable clips; files appear when they are complete.

    A fault of the storage is waited for.

    Raises:
        UserError: no space left, or the storage does not recover.
    """
    storage, path = filesystem(folder)

    def write(file: str, content: pa.Table) -> None:
        with written_whole(storage, file) as sink:
            pq.write_table(content, sink, compression="zstd", use_dictionary=False)

    if unreadable.num_rows:
        storage.create_dir(f"{path}/{UNREADABLE}", recursive=True)
        retried(lambda: write(f"{path}/{UNREADABLE}/{name}", unreadable), what=joined(folder, UNREADABLE, name))
    retried(lambda: write(f"{path}/{name}", table), what=joined(folder, name))


def read_unreadable(place: str) -> list[tuple[str, str]]:
    """Clip id and reason of the clips for which an evaluation has no prediction.

    Args:
        place: path or URI of a run, or of a folder of predictions; a single file has no such list.
    """
    storage, path = filesystem(place)
    inside = f"{path}/{FILE_NAME}"
    if storage.get_file_info(inside).type == pafs.FileType.Directory:
        path = inside
    selector = pafs.FileSelector(f"{path}/{UNREADABLE}", allow_not_found=True)
    files = sorted(info.path for info in retried(lambda: storage.get_file_info(selector), what=place))
    rows: list[tuple[str, str]] = []
    for file in files:
        if not file.endswith(PARTIAL):
            with storage.open_input_file(file) as source:
                table = pq.read_table(source, columns=["clip_id", "reason"])
            rows += zip(table["clip_id"].to_pylist(), table["reason"].to_pylist(), strict=True)
    return rows


def remove_partial(folder: str) -> None:
    """Remove what killed processes have left of files; not while another one may write."""
    storage, path = filesystem(folder)
    for info in storage.get_file_info(pafs.FileSelector(path, recursive=True)):
        if info.path.endswith(PARTIAL):
            with suppress(OSError):
                storage.delete_file(info.path)


def _read_mark(text: bytes | None, folder: str) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        return dict(json.loads(text))
    except (ValueError, TypeError) as error:
        raise UserError(f"{MARK} of '{folder}' is damaged ({error}); remove that folder") from error


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
