"""How predictions lie in Parquet files: columns, metadata, and what may be wrong with files of other programs.

One row per clip, in any number of files. Columns: `clip_id` (string), `labels` (list of int32, in the order of
`LabelMap.fields`; -1 in all fields if the truth is not known), for each field `probabilities_<field>` (list of float32:
softmax, averaged over the views), `num_views` (int32), and perhaps `view_probabilities_<field>` (list of float32: the
classes of the first view, then those of the second ...). The schema's metadata holds the label map as JSON, its
fingerprint, and the fingerprint of the checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from cast_ray.data.storage import filesystem, retried
from cast_ray.errors import UserError
from cast_ray.evaluation.parts import PartPlan
from cast_ray.labels import LabelMap

__all__ = [
    "CHECKPOINT_KEY",
    "FILE_NAME",
    "HIDDEN",
    "LABEL_MAP_FINGERPRINT_KEY",
    "LABEL_MAP_KEY",
    "MARK",
    "ROWS_AT_ONCE",
    "columns_table",
    "list_values",
    "predictions_schema",
    "read_mark",
    "read_tables",
]

LABEL_MAP_KEY, CHECKPOINT_KEY = b"cast_ray.label_map", b"cast_ray.checkpoint"
LABEL_MAP_FINGERPRINT_KEY = b"cast_ray.label_map_fingerprint"
"""Keys of the schema's metadata; other programs need only the first."""

FILE_NAME = "predictions.parquet"
"""What a run calls its predictions, a folder of parts."""

MARK = "evaluation.json"
"""What a folder has that an evaluation fills; says how many clips there will be in how many parts."""

ROWS_AT_ONCE = 10_000
"""Clips of a row group."""

Result = TypeVar("Result")

HIDDEN = (".", "_")
"""How names of files begin that are not part of a dataset."""


def predictions_schema(label_map: LabelMap, checkpoint: str, *, views: bool = False) -> pa.Schema:
    """The Parquet schema of the predictions of one model, with its metadata.

    Args:
        label_map: of the model.
        checkpoint: its fingerprint.
        views: with columns for the probabilities of each view.
    """
    columns = [("clip_id", pa.string()), ("labels", pa.list_(pa.int32()))]
    columns += [(f"probabilities_{field}", pa.list_(pa.float32())) for field in label_map.fields]
    columns += [("num_views", pa.int32())]
    if views:
        columns += [(f"view_probabilities_{field}", pa.list_(pa.float32())) for field in label_map.fields]
    metadata = {
        LABEL_MAP_KEY: label_map.to_json().encode(),
        LABEL_MAP_FINGERPRINT_KEY: label_map.fingerprint.encode(),
        CHECKPOINT_KEY: checkpoint.encode(),
    }
    return pa.schema(columns, metadata=metadata)


def columns_table(
    schema: pa.Schema,
    *,
    clip_ids: Sequence[str],
    labels: npt.NDArray[np.int64],
    probabilities: Mapping[str, npt.NDArray[np.float32]],
    num_views: npt.NDArray[np.int32],
    views: Mapping[str, npt.NDArray[np.float32]] | None = None,
) -> pa.Table:
    """A table of `schema` from the arrays of `Predictions`."""
    columns = {"clip_id": pa.array(clip_ids, pa.string()), "labels": _lists(labels, np.int32, 1)}
    columns |= {f"probabilities_{field}": _lists(values, np.float32, 1) for field, values in probabilities.items()}
    columns["num_views"] = pa.array(num_views.astype(np.int32))
    for field, values in (views or {}).items():
        columns[f"view_probabilities_{field}"] = _lists(values, np.float32, num_views)
    return pa.table(columns, schema=schema)


def read_tables(place: str, *, views: bool) -> tuple[pa.Table, LabelMap, str]:
    """The rows of all files at a place in the documented types, their label map, and the checkpoint's fingerprint.

    Raises:
        UserError: see `cast_ray.evaluation.predictions.read_predictions`.
    """
    storage, files = _files(place)
    opened = [(file, *_opened(storage, file)) for file in files]
    label_map, checkpoint = _common_origin([(file, schema) for file, schema, _ in opened])
    table = pa.concat_tables([_cast(storage, file, parquet, label_map, views=views) for file, _, parquet in opened])
    if table.num_rows == 0:
        raise UserError(f"predictions '{place}' hold no clips; evaluate a split that has some")
    return table, label_map, checkpoint


def read_mark(text: bytes, folder: str) -> dict[str, Any]:
    """What the `MARK` of a folder says; `UserError` if it is damaged."""
    try:
        return dict(json.loads(text))
    except (ValueError, TypeError) as error:
        raise UserError(f"{MARK} of '{folder}' is damaged ({error}); remove that folder") from error


def list_values(table: pa.Table, column: str, lengths: int | npt.NDArray[np.int32]) -> npt.NDArray:
    """All values of a list column one after the other; its lists must have `lengths` values, all the same or each its.

    Raises:
        UserError: a list has another length or an empty place.
    """
    found = pc.list_value_length(table[column]).to_numpy()
    expected = np.broadcast_to(lengths, found.shape)
    wrong = np.flatnonzero(found != expected)
    values = pc.list_flatten(table[column])
    if len(wrong):
        row = int(wrong[0])
        raise UserError(
            f"column '{column}' must hold {expected[row]} values for clip '{table['clip_id'][row]}', but has "
            f"{found[row]}; give the label map that belongs to these predictions"
        )
    if values.null_count:
        raise UserError(f"column '{column}' has lists with empty places; each class needs a value")
    return values.to_numpy()


def _lists(matrix: npt.NDArray, dtype: type, rows_per_list: int | npt.NDArray[np.int32]) -> pa.Array:
    """A list column from consecutive rows of a matrix."""
    counts = np.full(len(matrix), rows_per_list) if isinstance(rows_per_list, int) else rows_per_list
    offsets = np.concatenate([[0], np.cumsum(counts * matrix.shape[1])]).astype(np.int32)
    values: npt.NDArray = np.ascontiguousarray(matrix, dtype).reshape(-1)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values))


def _files(place: str) -> tuple[pafs.FileSystem, list[str]]:
    """The storage and the Parquet files of a file, a folder or a run."""
    storage, path = filesystem(place)

    def listed() -> list[str]:
        itself, inside = storage.get_file_info([path, f"{path}/{FILE_NAME}"])
        for info in (itself, inside):
            if info.type == pafs.FileType.File:
                return [info.path]
        folder = path if inside.type == pafs.FileType.NotFound else inside.path
        if storage.get_file_info(folder).type == pafs.FileType.NotFound:
            raise UserError(f"predictions '{place}' do not exist; give the file or folder that an evaluation wrote")
        found = storage.get_file_info(pafs.FileSelector(folder, recursive=True))
        files = sorted(
            info.path
            for info in found
            if info.type == pafs.FileType.File
            and info.extension == "parquet"
            and not any(part.startswith(HIDDEN) for part in info.path.removeprefix(folder).strip("/").split("/"))
        )
        if any(info.path == f"{folder}/{MARK}" for info in found):
            return _all_parts(storage, folder, files)
        return files

    files = retried(listed, what=place)
    if not files:
        raise UserError(f"'{place}' has no *.parquet files; give the file or folder that an evaluation wrote")
    return storage, files


def _all_parts(storage: pafs.FileSystem, folder: str, files: Sequence[str]) -> list[str]:
    """The parts of the evaluation that fills a folder; `UserError` if it has not come to its end."""
    with storage.open_input_file(f"{folder}/{MARK}") as source:
        mark = read_mark(source.read(), folder)
    clips, clips_per_part = mark.get("clips"), mark.get("clips_per_part")
    if not (isinstance(clips, int) and isinstance(clips_per_part, int) and clips_per_part > 0):
        raise UserError(
            f"{MARK} of '{folder}' does not say how many clips there are in how many parts, so no evaluation wrote it; "
            "give it another name, or give the *.parquet files in a folder of their own"
        )
    parts = [f"{folder}/{name}" for name in PartPlan(clips=clips, clips_per_part=clips_per_part).names]
    there = len(set(parts) & set(files))
    if there < len(parts):
        raise UserError(
            f"the evaluation of '{folder}' is not complete: {there} of {len(parts)} parts are there; start its command "
            "again, which does the others"
        )
    return parts


def _opened(storage: pafs.FileSystem, file: str) -> tuple[pa.Schema, pq.ParquetFile]:
    # ParquetFile, because read_table would take a folder name such as `epoch=3` for a column.
    parquet = _attempt(storage, file, lambda: pq.ParquetFile(file, filesystem=storage))
    return parquet.schema_arrow, parquet


def _attempt(storage: pafs.FileSystem, file: str, read: Callable[[], Result]) -> Result:
    """What `read` returns; `UserError` if the file is damaged. Waits for faults of storages that are not local."""
    try:
        # Parquet tells some damage as an OSError like those of a network, for which there is no use in waiting here.
        return read() if isinstance(storage, pafs.LocalFileSystem) else retried(read, what=file)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"'{file}' cannot be read as Parquet ({error}); evaluate again or restore the file") from error


def _common_origin(files: Sequence[tuple[str, pa.Schema]]) -> tuple[LabelMap, str]:
    """The label map and checkpoint that all files must share."""
    origins: dict[tuple[str, str], tuple[str, str]] = {}
    for file, schema in files:
        metadata = schema.metadata or {}
        if LABEL_MAP_KEY not in metadata:
            raise UserError(
                f"'{file}' has no label map: its schema metadata lacks the key '{LABEL_MAP_KEY.decode()}'; "
                "give predictions that an evaluation wrote, or add the label map as JSON under that key"
            )
        text, checkpoint, mark = (
            metadata.get(key, b"").decode(errors="replace")
            for key in (LABEL_MAP_KEY, CHECKPOINT_KEY, LABEL_MAP_FINGERPRINT_KEY)
        )
        origins.setdefault((text, checkpoint), (file, mark))
    if len(origins) > 1:
        (first, _), (second, _) = list(origins.values())[:2]
        raise UserError(
            f"'{first}' and '{second}' come from different checkpoints or label maps; "
            "read the predictions of one model at a time"
        )
    ((text, checkpoint), (file, mark)) = next(iter(origins.items()))
    label_map = LabelMap.from_json(text, where=f"the label map in '{file}'")
    if mark and mark != label_map.fingerprint:
        raise UserError(
            f"the class names in '{file}' have the fingerprint {label_map.fingerprint}, its metadata says {mark}; "
            "they were changed after the evaluation, so restore the file or evaluate again"
        )
    return label_map, checkpoint


def _cast(
    storage: pafs.FileSystem, file: str, parquet: pq.ParquetFile, label_map: LabelMap, *, views: bool
) -> pa.Table:
    """The expected columns of a file in the expected types; foreign files may use wider ones."""
    schema = predictions_schema(label_map, "", views=views).remove_metadata()
    present = parquet.schema_arrow.names
    missing = [name for name in schema.names if name not in present]
    if missing:
        raise UserError(f"'{file}' lacks the columns {missing}; it has {present}, expected {schema.names}")
    repeated = [name for name in schema.names if present.count(name) > 1]
    if repeated:
        raise UserError(f"'{file}' has more than one column {repeated}; keep one of each")
    table = _attempt(storage, file, lambda: parquet.read(columns=schema.names))
    try:
        table = table.select(schema.names).cast(schema)
    except (pa.ArrowException, ValueError) as error:
        raise UserError(f"'{file}' has a column of the wrong type ({error}); expected {schema}") from error
    empty = [name for name in schema.names if table[name].null_count]
    if empty:
        raise UserError(f"'{file}' has empty cells in the columns {empty}; every clip needs a value in each column")
    return table
