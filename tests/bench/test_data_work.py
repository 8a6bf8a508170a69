"""How work is measured: steady speed, stages, bytes, processor time and memory, on work whose cost is known."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass

import numpy as np
import pytest

from cast_ray.bench import data_work
from cast_ray.bench.data_work import bare_loop, peak_memory, steady


def test_the_start_and_unfinished_waves_do_not_count(monkeypatch):
    """Batches of 2 clips at seconds 10, 10, 13, 13, 16, 16, ...; waves of 4 clips."""
    clock = itertools.chain([0.0], (10.0 + 3 * (number // 2) for number in itertools.count()))
    monkeypatch.setattr(data_work.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(data_work, "processor_seconds", lambda process: next(used))
    used = iter([5.0, 21.0])
    result = steady(itertools.repeat(2), wave=4, seconds=6)
    assert result["first_batch_seconds"] == 10
    assert result["clips_per_second"] == pytest.approx(8 / 6)
    assert result["processor_seconds_per_clip"] == pytest.approx(16 / 8)


def test_a_stream_that_is_too_short_is_told():
    with pytest.raises(RuntimeError, match="ended after 4 clips"):
        steady([2, 2], wave=2, seconds=60)


def _busy(seconds: float) -> None:
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass


def _idle(seconds: float) -> None:
    time.sleep(seconds)


@dataclass(frozen=True)
class _Known:
    """Two clips at a time: 40 ms of processor, 60 ms of waiting, one megabyte from a file."""

    file: str

    def __call__(self, number: int) -> int:
        _busy(0.04)
        _idle(0.06)
        with open(self.file, "rb") as source:
            source.read()
        return 2

    def stages(self):
        return {"busy": (_busy,), "idle": (_idle,)}


def test_a_bare_loop_tells_speed_stages_and_bytes(tmp_path, monkeypatch):
    file = tmp_path / "megabyte"
    file.write_bytes(bytes(10**6))
    result = bare_loop(_Known(str(file)), workers=2, seconds=1)
    # Lower bounds hold on a busy machine too.
    assert 4 < result["clips_per_second"] <= 2 * 2 / 0.1
    assert result["processor_seconds_per_clip"] >= 0.02
    assert result["bytes_read_per_clip"] == pytest.approx(5 * 10**5, rel=0.05)
    assert result["seconds_per_clip"]["busy"] >= 0.02
    assert result["seconds_per_clip"]["idle"] >= 0.03
    assert 0 <= result["seconds_per_clip"]["other"] < result["seconds_per_clip"]["busy"] + 0.03


def test_the_peak_counts_what_was_in_use_meanwhile(monkeypatch):
    monkeypatch.setattr(data_work, "MEMORY_EVERY_S", 0.01)
    before: dict = {}
    with peak_memory(before):
        time.sleep(0.1)
    peak: dict = {}
    with peak_memory(peak):
        block = np.ones(64 * 2**20, np.uint8)
        time.sleep(0.3)
        del block
    assert peak["peak_memory"] - before["peak_memory"] == pytest.approx(64 * 2**20, rel=0.3)
