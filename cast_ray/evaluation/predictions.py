"""What a model said about each clip: the predictions dataset, in memory and as Parquet files.

One row per clip. Columns: `clip_id` (string), `labels` (list of int32, in the order of `LabelMap.fields`), for each
field `probabilities_<field>` (list of float32: softmax, averaged over the views) and `num_views` (int32). The schema's
metadata holds the label map as JSON and the fingerprint of the checkpoint. Files of this layout that were written by
other programs are read as well.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cast_ray.errors import UserError
from cast_ray.labels import LabelMap

__all__ = [
    "CHECKPOINT_KEY",
    "LABEL_MAP_KEY",
    "Predictions",
    "predictions_schema",
    "read_predictions",
    "write_predictions",
]

LABEL_MAP_KEY, CHECKPOINT_KEY = b"cast_ray.label_map", b"cast_ray.checkpoint"
"""Keys of the schema's metadata."""


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """The class probabilities of n clips, with the truth; checked when built.

    Raises:
        UserError: there are no clips, a clip id occurs twice, a label is outside the label map, or an array has the
            wrong shape or a value that is not a finite number.
    """

    clip_ids: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    """[n, fields] true class indices, in the order of `label_map.fields`."""
    probabilities: Mapping[str, npt.NDArray[np.float32]]
    """Field -> [n, classes], averaged over the views."""
    num_views: npt.NDArray[np.int32]
    """[n] views behind each row."""
    label_map: LabelMap
    checkpoint: str
    """Fingerprint of the checkpoint that made the predictions."""

    def __post_init__(self) -> None:
        n, fields = len(self.clip_ids), self.label_map.fields
        if n == 0:
            raise UserError("the predictions hold no clips; evaluate a split that has some")
        repeated = [clip_id for clip_id, count in Counter(self.clip_ids).items() if count > 1]
        if repeated:
            raise UserError(
                f"{len(repeated)} clip ids occur more than once in the predictions, for example {repeated[:3]}; "
                "each clip must be counted exactly once, so remove the repeated rows or files"
            )
        if tuple(self.probabilities) != fields:
            raise UserError(f"the predictions are for {list(self.probabilities)}, the label map for {list(fields)}")
        _check_shape("labels", self.labels, (n, len(fields)))
        _check_shape("num_views", self.num_views, (n,))
        for column, (field, num_classes) in enumerate(self.label_map.num_classes.items()):
            _check_shape(f"probabilities of '{field}'", self.probabilities[field], (n, num_classes))
            outside = (self.labels[:, column] < 0) | (self.labels[:, column] >= num_classes)
            for row in np.flatnonzero(outside)[:1]:
                self.label_map.check(self.labels[row].tolist(), where=f"clip '{self.clip_ids[row]}'")
            for row in np.flatnonzero(~np.isfinite(self.probabilities[field]).all(axis=1))[:1]:
                raise UserError(
                    f"the {field} probabilities of clip '{self.clip_ids[row]}' hold a value that is not a finite "
                    "number; the model diverged or the file is damaged, so evaluate another checkpoint"
                )

    def true(self, field: str) -> npt.NDArray[np.int64]:
        """[n] true class indices of one field."""
        return self.labels[:, self.label_map.fields.index(field)]

    def predicted(self, field: str) -> npt.NDArray[np.int64]:
        """[n] most probable class indices of one field; the lower index wins a tie."""
        return self.probabilities[field].argmax(axis=1)

    def right(self, *fields: str) -> npt.NDArray[np.bool_]:
        """[n] whether the most probable class is the true one in each of `fields`, all fields by default."""
        asked = fields or self.label_map.fields
        return np.all([self.predicted(field) == self.true(field) for field in asked], axis=0)


def predictions_schema(label_map: LabelMap, checkpoint: str) -> pa.Schema:
    """The Parquet schema of the predictions of one model, with its metadata."""
    columns = [("clip_id", pa.string()), ("labels", pa.list_(pa.int32()))]
    columns += [(f"probabilities_{field}", pa.list_(pa.float32())) for field in label_map.fields]
    metadata = {LABEL_MAP_KEY: label_map.to_json().encode(), CHECKPOINT_KEY: checkpoint.encode()}
    return pa.schema([*columns, ("num_views", pa.int32())], metadata=metadata)


def write_predictions(path: Path, predictions: Predictions) -> Path:
    """Write one Parquet file, which is visible only when it is complete; returns `path`."""
    columns = {"clip_id": list(predictions.clip_ids), "labels": list(predictions.labels.astype(np.int32))}
    for field, probabilities in predictions.probabilities.items():
        columns[f"probabilities_{field}"] = list(probabilities.astype(np.float32))
    columns["num_views"] = predictions.num_views.tolist()
    schema = predictions_schema(predictions.label_map, predictions.checkpoint)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        pq.write_table(pa.table(columns, schema=schema), partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def read_predictions(path: Path) -> Predictions:
    """Read one Parquet file, or all `*.parquet` files below a folder, in the order of their names.

    Raises:
        UserError: nothing is there, a file is damaged or has other columns, the files come from different models, or
            the content does not hold together (see `Predictions`).
    """
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*.parquet") if file.is_file())
    if not files:
        what = "has no *.parquet files" if path.is_dir() else "does not exist"
        raise UserError(f"predictions '{path}' {what}; give the file or folder that an evaluation wrote")
    tables = [_read_table(file) for file in files]
    label_map, checkpoint = _common_origin(files, tables)
    table = pa.concat_tables([_cast(file, table, label_map) for file, table in zip(files, tables, strict=True)])
    if table.num_rows == 0:
        raise UserError(f"predictions '{path}' hold no clips; evaluate a split that has some")
    return Predictions(
        clip_ids=tuple(table["clip_id"].to_pylist()),
        labels=_matrix(table, "labels", len(label_map.fields), path).astype(np.int64),
        probabilities={
            field: _matrix(table, f"probabilities_{field}", num_classes, path)
            for field, num_classes in label_map.num_classes.items()
        },
        num_views=table["num_views"].to_numpy(),
        label_map=label_map,
        checkpoint=checkpoint,
    )


def _read_table(file: Path) -> pa.Table:
    try:
        # ParquetFile, because read_table would take a folder name such as `epoch=3` for a column.
        with pq.ParquetFile(file) as parquet:
            return parquet.read()
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"'{file}' cannot be read as Parquet ({error}); evaluate again or restore the file") from error


def _common_origin(files: Iterable[Path], tables: Iterable[pa.Table]) -> tuple[LabelMap, str]:
    """The label map and checkpoint that all files must share."""
    origins: dict[tuple[str, str], Path] = {}
    for file, table in zip(files, tables, strict=True):
        metadata = table.schema.metadata or {}
        if LABEL_MAP_KEY not in metadata:
            raise UserError(
                f"'{file}' has no label map: its schema metadata lacks the key '{LABEL_MAP_KEY.decode()}'; "
                "give predictions that an evaluation wrote, or add the label map as JSON under that key"
            )
        origin = (metadata[LABEL_MAP_KEY].decode(), metadata.get(CHECKPOINT_KEY, b"").decode())
        origins.setdefault(origin, file)
    if len(origins) > 1:
        first, second = list(origins.values())[:2]
        raise UserError(
            f"'{first}' and '{second}' come from different checkpoints or label maps; "
            "read the predictions of one model at a time"
        )
    text, checkpoint = next(iter(origins))
    try:
        return LabelMap.from_json(text), checkpoint
    except (ValueError, AttributeError, TypeError) as error:
        file = next(iter(origins.values()))
        raise UserError(f"the label map in '{file}' is not a JSON object of class name lists: {text[:80]!r}") from error


def _cast(file: Path, table: pa.Table, label_map: LabelMap) -> pa.Table:
    """The expected columns in the expected types; foreign files may use wider ones."""
    schema = predictions_schema(label_map, "").remove_metadata()
    missing = [name for name in schema.names if name not in table.column_names]
    if missing:
        raise UserError(f"'{file}' lacks the columns {missing}; it has {table.column_names}, expected {schema.names}")
    try:
        table = table.select(schema.names).cast(schema)
    except (pa.ArrowException, ValueError) as error:
        raise UserError(f"'{file}' has a column of the wrong type ({error}); expected {schema}") from error
    empty = [name for name in schema.names if table[name].null_count]
    if empty:
        raise UserError(f"'{file}' has empty cells in the columns {empty}; every clip needs a value in each column")
    return table


def _matrix(table: pa.Table, column: str, width: int, path: Path) -> npt.NDArray[np.float32]:
    """[rows, width] of a list column whose lists must all have `width` values."""
    lengths = pc.list_value_length(table[column]).to_numpy()
    wrong = np.flatnonzero(lengths != width)
    values = pc.list_flatten(table[column])
    if len(wrong) or values.null_count:
        example = "some are empty"
        if len(wrong):
            example = f"clip '{table['clip_id'][int(wrong[0])]}' has {lengths[wrong[0]]}"
        raise UserError(
            f"column '{column}' of '{path}' must hold {width} values for each clip, but {example}; "
            "give the label map that belongs to these predictions"
        )
    return values.to_numpy().reshape(-1, width)


def _check_shape(name: str, array: npt.NDArray, shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise UserError(f"the {name} of the predictions have shape {list(array.shape)}; expected {list(shape)}")
