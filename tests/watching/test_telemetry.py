"""Which metrics are set, without Ray; tests/integration/test_watching.py reads them as Prometheus does."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cast_ray.watching import telemetry


class Gauge:
    """Stands for Ray's: remembers the last value by tags."""

    def __init__(self, name: str, text: str, tag_keys: tuple[str, ...]) -> None:
        self.values: dict[str | None, float] = {}

    def set(self, value: float, tags: dict[str, str]) -> None:
        self.values[tags.get("worker")] = value


def test_workers_that_have_gone_are_shown_as_idle(
    monkeypatch: pytest.MonkeyPatch, step_row: Callable[..., dict]
) -> None:
    monkeypatch.setattr(telemetry, "Gauge", Gauge)
    shown = telemetry.Telemetry("run")
    row = step_row()
    shown.show(row)
    speeds = shown._worker["clips_per_s"].values
    assert speeds == {"0": 25.5, "1": 25.5, "2": 25.5, "3": 24.5}
    shown.show(step_row(workers={name: values[:2] for name, values in row["workers"].items()}))
    assert speeds == {"0": 25.5, "1": 25.5, "2": 0.0, "3": 0.0}
    shown.show(row)
    assert speeds == {"0": 25.5, "1": 25.5, "2": 25.5, "3": 24.5}
