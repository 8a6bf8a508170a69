"""The writer: rows whose replica died come again, and must find their part written, or write it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor, TimeoutError
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import cast_ray.evaluation.writer
from cast_ray.errors import UserError
from cast_ray.evaluation.part_tables import AllProbabilities
from cast_ray.evaluation.parts import ROW, VALID, PartPlan
from cast_ray.evaluation.writer import Writer
from cast_ray.labels import LabelMap

PLAN = PartPlan(clips=4, clips_per_part=2)
TABLE = AllProbabilities(label_map=LabelMap({"label": ("a", "b")}), checkpoint="abc")
TIMEOUT_S = 20


def batch(*rows: int) -> dict[str, np.ndarray]:
    return {
        ROW: np.array(rows),
        VALID: np.array([row != 1 for row in rows]),
        "reason": np.array(["" if row != 1 else "file is empty" for row in rows], dtype=object),
        "clip_id": np.array([f"clip {row}" for row in rows], dtype=object),
        "labels": np.zeros((len(rows), 1), np.int64),
        "num_views": np.ones(len(rows), np.int32),
        "probabilities_label": np.full((len(rows), 2), 0.5, np.float32),
    }


def test_a_repeated_add_waits_for_the_part_that_is_being_written(tmp_path, monkeypatch):
    """Else the driver sees the end of the work, and kills the writer in the middle of a file."""
    begun, go_on, written = threading.Event(), threading.Event(), []

    def slow(folder: str, name: str, table: pa.Table, unreadable: pa.Table) -> None:
        begun.set()
        assert go_on.wait(TIMEOUT_S)
        written.append((name, table["clip_id"].to_pylist(), unreadable["clip_id"].to_pylist()))

    monkeypatch.setattr(cast_ray.evaluation.writer, "write_part", slow)
    writer = Writer(str(tmp_path), PLAN, [], TABLE)
    with ThreadPoolExecutor() as replicas:
        first = replicas.submit(writer.add, batch(0, 1))
        assert begun.wait(TIMEOUT_S)
        again = replicas.submit(writer.add, batch(0, 1))
        with pytest.raises(TimeoutError):
            again.result(timeout=0.2)
        replicas.submit(writer.add, batch(2)).result(TIMEOUT_S)  # other parts do not wait
        go_on.set()
        first.result(TIMEOUT_S)
        again.result(TIMEOUT_S)
    assert written == [("part-000000.parquet", ["clip 0"], ["clip 1"])]
    assert writer.progress() == (3, 1)


def test_a_part_whose_writing_failed_is_written_by_a_repeated_add(tmp_path, monkeypatch):
    write = cast_ray.evaluation.writer.write_part

    def fails(*_: object) -> None:
        raise UserError("no space left")

    writer = Writer(str(tmp_path), PLAN, [], TABLE)
    monkeypatch.setattr(cast_ray.evaluation.writer, "write_part", fails)
    for _ in range(2):
        with pytest.raises(UserError, match="no space left"):
            writer.add(batch(1, 0))
    monkeypatch.setattr(cast_ray.evaluation.writer, "write_part", write)
    writer.add(batch(0))
    assert [path.name for path in Path(tmp_path).glob("*.parquet")] == ["part-000000.parquet"]
    assert writer.progress() == (2, 1)
