"""Which metrics are set, without Ray; tests/integration/test_watching.py reads them as Prometheus does."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cast_ray.watching import telemetry


class Gauge:
    """Stands for Ray's: remembers the values by tags, until they are exported."""

    def __init__(self, name: str, text: str, tag_keys: tuple[str, ...]) -> None:
        self.values: dict[str | None, float] = {}

    def set(self, value: float, tags: dict[str, str]) -> None:
        self.values[tags.get("worker", tags.get("metric"))] = value

    def export(self) -> dict[str | None, float]:
        exported, self.values = self.values, {}
        return exported


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> telemetry.Telemetry:
    monkeypatch.setattr(telemetry, "Gauge", Gauge)
    return telemetry.Telemetry("run")


def test_workers_that_have_gone_are_not_shown_any_more(
    shown: telemetry.Telemetry, step_row: Callable[..., dict]
) -> None:
    row, speeds = step_row(), shown._worker["clips_per_s"]
    shown.show(row)
    assert speeds.export() == {"0": 25.5, "1": 25.5, "2": 25.5, "3": 24.5}
    shown.show(step_row(workers={name: values[:2] for name, values in row["workers"].items()}))
    shown.refresh()
    assert speeds.export() == {"0": 25.5, "1": 25.5}
    shown.show(row)
    assert speeds.export() == {"0": 25.5, "1": 25.5, "2": 25.5, "3": 24.5}


def test_figures_stay_until_there_are_newer_ones(shown: telemetry.Telemetry, step_row: Callable[..., dict]) -> None:
    shown.show(step_row(loss=2.0, grad_norm=1.0))
    shown.show({"kind": "epoch", "validation": {"loss": 1.5, "label_top1": 0.25}})
    for _ in range(3):
        assert shown._step["loss"].export() == {None: 2.0}
        assert shown._validation.export() == {"loss": 1.5, "label_top1": 0.25}
        shown.refresh()
    shown.show(step_row(loss=1.0, grad_norm=None))
    assert shown._step["loss"].export() == {None: 1.0}
    shown._step["grad_norm"].export()
    shown.refresh()
    assert shown._step["grad_norm"].export() == {}
