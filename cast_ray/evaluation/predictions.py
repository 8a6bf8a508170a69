"""What a model said about each clip: the predictions of one model, in memory and as Parquet files on any storage.

The layout of the files is in docs/evaluation.md and `cast_ray.evaluation.prediction_files`; files of this layout that
other programs wrote are read as well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from cast_ray.data.storage import filesystem, written_whole
from cast_ray.errors import UserError
from cast_ray.evaluation.prediction_files import (
    CHECKPOINT_KEY,
    FILE_NAME,
    LABEL_MAP_FINGERPRINT_KEY,
    LABEL_MAP_KEY,
    ROWS_AT_ONCE,
    columns_table,
    list_values,
    predictions_schema,
    read_tables,
)
from cast_ray.labels import LabelMap

__all__ = [
    "CHECKPOINT_KEY",
    "FILE_NAME",
    "LABEL_MAP_FINGERPRINT_KEY",
    "LABEL_MAP_KEY",
    "UNKNOWN",
    "Predictions",
    "predictions_schema",
    "read_predictions",
    "write_predictions",
]

UNKNOWN = -1
"""The label, in all fields, of a clip whose truth is not known, as in a test set."""

SUM_TOLERANCE = 1e-2
"""How far from 1 the probabilities of a clip may add up to: they may have been stored in half precision or as text."""

Place = TypeVar("Place", str, Path)


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """The class probabilities of n clips, with the truth where it is known; checked when built.

    Raises:
        UserError: there are no clips, a clip id occurs twice, a label is outside the label map, an array has the wrong
            shape, or what should be probabilities is not: not finite, negative, or not adding up to 1.
    """

    clip_ids: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    """[n, fields] true class indices, in the order of `label_map.fields`; `UNKNOWN` in all fields if not known."""
    probabilities: Mapping[str, npt.NDArray[np.float32]]
    """Field -> [n, classes], averaged over the views."""
    num_views: npt.NDArray[np.int32]
    """[n] views behind each row."""
    label_map: LabelMap
    checkpoint: str
    """Fingerprint of the checkpoint that made the predictions."""
    view_probabilities: Mapping[str, npt.NDArray[np.float32]] | None = None
    """Field -> [sum of num_views, classes], the views of the first clip first; None if they were not kept."""

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
        for row in np.flatnonzero(self.num_views < 1)[:1]:
            raise UserError(f"clip '{self.clip_ids[row]}' has {self.num_views[row]} views; it must be 1 or more")
        self._check_labels()
        for field, num_classes in self.label_map.num_classes.items():
            _check_shape(f"probabilities of '{field}'", self.probabilities[field], (n, num_classes))
            _check_probabilities(self.probabilities[field], field, self.clip_ids)
        if self.view_probabilities is not None:
            self._check_views(self.view_probabilities)

    @property
    def labelled(self) -> npt.NDArray[np.bool_]:
        """[n] whether the truth is known."""
        return ~(self.labels == UNKNOWN).all(axis=1)

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

    def _check_labels(self) -> None:
        sizes = np.array(list(self.label_map.num_classes.values()))
        outside = ((self.labels < 0) | (self.labels >= sizes)).any(axis=1) & self.labelled
        for row in np.flatnonzero(outside)[:1]:
            self.label_map.check(self.labels[row].tolist(), where=f"clip '{self.clip_ids[row]}'")

    def _check_views(self, views: Mapping[str, npt.NDArray[np.float32]]) -> None:
        if tuple(views) != self.label_map.fields:
            raise UserError(f"the views are for {list(views)}, the label map for {list(self.label_map.fields)}")
        owners = np.repeat(np.arange(len(self.clip_ids)), self.num_views)
        for field, num_classes in self.label_map.num_classes.items():
            _check_shape(f"view probabilities of '{field}'", views[field], (len(owners), num_classes))
            _check_probabilities(views[field], field, self.clip_ids, owners)


def write_predictions(place: Place, predictions: Predictions) -> Place:
    """Write one Parquet file, which is visible only when it is complete; returns `place`.

    Args:
        place: path or URI of the file; missing folders are made.
        predictions: what to write; view probabilities only if they are there.

    Raises:
        UserError: there is no such storage, or no space left.
    """
    storage, path = filesystem(str(place))
    storage.create_dir(path.rpartition("/")[0], recursive=True)
    views = predictions.view_probabilities
    schema = predictions_schema(predictions.label_map, predictions.checkpoint, views=views is not None)
    ends = np.concatenate([[0], np.cumsum(predictions.num_views, dtype=np.int64)])
    # Probabilities hardly repeat: a dictionary of them costs more time than the file, and saves nothing.
    with (
        written_whole(storage, path) as sink,
        pq.ParquetWriter(sink, schema, compression="zstd", use_dictionary=False) as writer,
    ):
        for start in range(0, len(predictions.clip_ids), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            num_views = predictions.num_views[rows]
            of_rows = slice(ends[start], ends[start + len(num_views)])
            table = columns_table(
                schema,
                clip_ids=predictions.clip_ids[rows],
                labels=predictions.labels[rows],
                probabilities={field: values[rows] for field, values in predictions.probabilities.items()},
                num_views=num_views,
                views=None if views is None else {field: values[of_rows] for field, values in views.items()},
            )
            writer.write_table(table)
    return place


def read_predictions(place: str | Path, *, views: bool = False) -> Predictions:
    """Read one Parquet file, or all `*.parquet` files below a folder, in the order of their names.

    A folder with something called `predictions.parquet` in it is taken for a run, and only that is read.

    Args:
        place: path or URI of a file, of a folder of files, or of a run.
        views: read the probabilities of each view too; the files must have them.

    Raises:
        UserError: nothing is there, a file is damaged or has other columns, the files come from different models, or
            the content does not hold together (see `Predictions`).
    """
    table, label_map, checkpoint = read_tables(str(place), views=views)
    num_views = table["num_views"].to_numpy()
    fields = len(label_map.fields)
    try:
        return Predictions(
            clip_ids=tuple(table["clip_id"].to_pylist()),
            labels=list_values(table, "labels", fields).reshape(-1, fields).astype(np.int64),
            probabilities={
                field: list_values(table, f"probabilities_{field}", size).reshape(-1, size)
                for field, size in label_map.num_classes.items()
            },
            num_views=num_views,
            label_map=label_map,
            checkpoint=checkpoint,
            view_probabilities={
                field: list_values(table, f"view_probabilities_{field}", num_views * size).reshape(-1, size)
                for field, size in label_map.num_classes.items()
            }
            if views
            else None,
        )
    except UserError as error:
        raise UserError(f"predictions '{place}': {error}") from error


def _check_shape(name: str, array: npt.NDArray, shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise UserError(f"the {name} of the predictions have shape {list(array.shape)}; expected {list(shape)}")


def _check_probabilities(
    values: npt.NDArray[np.float32],
    field: str,
    clip_ids: tuple[str, ...],
    owners: npt.NDArray[np.int64] | None = None,
) -> None:
    """Raise `UserError` unless each row of `values` is a distribution; `owners` has the clip of each row of views."""
    with np.errstate(invalid="ignore"):
        lowest, sums = values.min(axis=1), values.sum(axis=1, dtype=np.float64)
    # A sum is finite only if all of its parts are.
    wrong = np.flatnonzero(~np.isfinite(sums) | (lowest < 0) | (np.abs(sums - 1) > SUM_TOLERANCE))
    if not len(wrong):
        return
    row = int(wrong[0])
    clip = f"the {field} probabilities of clip '{clip_ids[row if owners is None else owners[row]]}'"
    if not np.isfinite(sums[row]):
        raise UserError(
            f"{clip} hold a value that is not a finite number; the model diverged or the file is damaged, so evaluate "
            "another checkpoint"
        )
    what = f"hold {lowest[row]:.4g}, which is below 0" if lowest[row] < 0 else f"add up to {sums[row]:.4g} instead of 1"
    raise UserError(
        f"{clip} {what} ({len(wrong)} rows of {len(values)} are wrong); if these are logits or logarithms, apply the "
        "softmax, to each view before the mean over views"
    )
