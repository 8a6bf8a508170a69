"""What the rows of a part look like in its file: all probabilities in the documented format, or the best classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cast_ray.evaluation.parts import Columns
from cast_ray.evaluation.prediction_files import columns_table, predictions_schema
from cast_ray.labels import LabelMap

__all__ = ["SOURCE_COLUMNS", "AllProbabilities", "BestClasses", "PartTable"]

SOURCE_COLUMNS = {"uri": pa.string(), "start_s": pa.float64(), "stop_s": pa.float64()}
"""Columns that say which video a clip is, where there is no dataset that does."""


class PartTable(Protocol):
    """Makes the table of a part."""

    @property
    def views(self) -> bool:
        """Whether the probabilities of each view are wanted."""

    @property
    def source(self) -> bool:
        """Whether rows have `SOURCE_COLUMNS`."""

    def table(self, rows: Columns) -> pa.Table:
        """Rows with `clip_id`, `labels` [n, fields], `probabilities_<field>` [n, classes], `num_views` [n], perhaps
        `view_probabilities_<field>` [n, V, classes] and `SOURCE_COLUMNS`, as they are stored."""


@dataclass(frozen=True, kw_only=True)
class AllProbabilities:
    """The documented format of predictions, see `cast_ray.evaluation.prediction_files`."""

    label_map: LabelMap
    checkpoint: str
    """Fingerprint of the checkpoint."""
    views: bool = False
    source: bool = False

    def table(self, rows: Columns) -> pa.Table:
        """As `PartTable.table`."""
        stacked = {field: rows[f"view_probabilities_{field}"] for field in self.label_map.fields if self.views}
        table = columns_table(
            predictions_schema(self.label_map, self.checkpoint, views=self.views),
            clip_ids=rows["clip_id"].tolist(),
            labels=rows["labels"],
            probabilities={field: rows[f"probabilities_{field}"] for field in self.label_map.fields},
            num_views=rows["num_views"],
            views={field: values.reshape(-1, values.shape[-1]) for field, values in stacked.items()} or None,
        )
        return _with_source(table, rows) if self.source else table


@dataclass(frozen=True, kw_only=True)
class BestClasses:
    """A small table: per label field the column `top_<field>`, a list of {class, name, probability}, best first."""

    label_map: LabelMap
    checkpoint: str
    top: int
    """Classes of each field, or all if there are fewer."""
    views: bool = False
    source: bool = True

    def table(self, rows: Columns) -> pa.Table:
        """As `PartTable.table`."""
        columns: dict[str, pa.Array] = {"clip_id": pa.array(rows["clip_id"].tolist(), pa.string())}
        for field, names in self.label_map.names.items():
            columns[f"top_{field}"] = _best(rows[f"probabilities_{field}"], names, min(self.top, len(names)))
        table = _with_source(pa.table(columns), rows)
        metadata = predictions_schema(self.label_map, self.checkpoint).metadata
        return table.replace_schema_metadata(metadata)


def _best(probabilities: npt.NDArray[np.float32], names: tuple[str, ...], top: int) -> pa.Array:
    # Stable, so that the lower index wins a tie, as everywhere.
    classes = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
    best = pa.StructArray.from_arrays(
        [
            pa.array(classes.reshape(-1).astype(np.int32)),
            pa.array(np.array(names, dtype=object)[classes.reshape(-1)].tolist(), pa.string()),
            pa.array(np.take_along_axis(probabilities, classes, axis=1).reshape(-1).astype(np.float32)),
        ],
        names=["class", "name", "probability"],
    )
    return pa.ListArray.from_arrays(pa.array(np.arange(0, classes.size + 1, top), pa.int32()), best)


def _with_source(table: pa.Table, rows: Columns) -> pa.Table:
    for name, kind in SOURCE_COLUMNS.items():
        values: list[Any] = rows[name].tolist()
        table = table.append_column(name, pa.array(values, kind, from_pandas=True))  # NaN: there is no such second
    return table
