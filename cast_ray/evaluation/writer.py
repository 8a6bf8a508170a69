"""Who has the rows of parts that are not complete, and writes those that are: one actor per evaluation."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict

import pyarrow as pa

from cast_ray.evaluation.part_files import write_part
from cast_ray.evaluation.part_tables import SOURCE_COLUMNS, PartTable
from cast_ray.evaluation.parts import VALID, Assembler, Columns, PartPlan

__all__ = ["Writer"]


class Writer:
    """Several replicas and decoders may call it at the same time."""

    def __init__(self, output: str, plan: PartPlan, finished: list[int], table: PartTable) -> None:
        self._output, self._table, self._names = output, table, plan.names
        self._assembler, self._lock = Assembler(plan, finished), threading.Lock()
        self._writing: defaultdict[int, threading.Lock] = defaultdict(threading.Lock)
        self._begun: Counter[str] = Counter()

    def add(self, batch: Columns) -> None:
        """Take in rows; comes back when the parts that they complete are written.

        Rows that come again, as their replica died meanwhile, wait for the part too, and write it if that has failed.
        """
        with self._lock:
            complete = [(part, rows, self._writing[part]) for part, rows in self._assembler.add(batch)]
        for part, rows, alone in complete:
            with alone:
                self._write(part, rows)

    def _write(self, part: int, rows: Columns) -> None:
        with self._lock:
            if self._assembler.is_written(part):
                return
        readable = rows[VALID].astype(bool)
        table = self._table.table({name: values[readable] for name, values in rows.items()})
        unreadable = {name: values[~readable] for name, values in rows.items()}
        write_part(self._output, self._names[part], table, _unreadable(unreadable, source=self._table.source))
        with self._lock:
            self._assembler.written(part)

    def begin(self, work: str) -> int:
        """How often this work was begun before and did not end."""
        with self._lock:
            self._begun[work] += 1
            return self._begun[work] - 1

    def end(self, work: str) -> None:
        """The work is done."""
        with self._lock:
            del self._begun[work]

    def progress(self) -> tuple[int, int]:
        """Clips that have come, whether written or not, and how many of them are unreadable."""
        with self._lock:
            return self._assembler.clips, self._assembler.unreadable


def _unreadable(rows: Columns, *, source: bool) -> pa.Table:
    columns = {name: pa.array(rows[name].tolist(), pa.string()) for name in ("clip_id", "reason")}
    if source:
        kinds = SOURCE_COLUMNS.items()
        columns |= {name: pa.array(rows[name].tolist(), kind, from_pandas=True) for name, kind in kinds}
    return pa.table(columns)
