"""How decode workers turn rows into media, also where a clip kills the process that decodes it.

Ray begins the work of a dead process again, for ever. So the writer keeps count of what was begun and did not end: the
clips of a task that died are decoded one by one, and a clip that kills its process again and again is unreadable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from ray.actor import ActorHandle

from cast_ray.cluster import get
from cast_ray.evaluation.parts import ROW

__all__ = ["ReadClips"]

DEATHS = 2
"""Times that a process must have died with a clip alone: one death may have been the machine's."""


@dataclass(frozen=True, kw_only=True)
class ReadClips:
    """Numbers of tasks in, the media of their clips out, a batch at a time."""

    clips: ray.ObjectRef
    clips_per_task: int
    clips_per_batch: int
    loader: Callable[[pa.Table], Mapping[str, Any]]
    writer: ActorHandle

    def __call__(self, tasks: dict[str, np.ndarray]) -> Iterator[Mapping[str, Any]]:
        clips: pa.Table = ray.get(self.clips)
        for task in tasks["id"].tolist():
            died_before = get(self.writer.begin.remote(f"task {task}")) > 0
            rows = clips.slice(task * self.clips_per_task, self.clips_per_task)
            for first in range(0, rows.num_rows, self.clips_per_batch):
                batch = rows.slice(first, self.clips_per_batch)
                yield self._one_by_one(batch) if died_before else self.loader(batch)
            get(self.writer.end.remote(f"task {task}"))

    def _one_by_one(self, rows: pa.Table) -> Mapping[str, Any]:
        loaded = []
        for place in range(rows.num_rows):
            row = rows.slice(place, 1)
            work = f"clip {row[ROW][0]}"
            deadly = get(self.writer.begin.remote(work)) >= DEATHS
            loaded.append(self.loader(_unusable(row) if deadly else row))
            get(self.writer.end.remote(work))
        return {name: np.concatenate([each[name] for each in loaded]) for name in loaded[0]}


def _unusable(row: pa.Table) -> pa.Table:
    """The row as that of a clip which preparation could not use; loaders do not touch such a clip."""
    for name, value in (("num_frames", pa.nulls(1, pa.int32())), ("reason", pa.array(["decoding kills the process"]))):
        row = row.drop_columns([name] if name in row.column_names else []).append_column(name, value)
    return row
