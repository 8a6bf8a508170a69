"""Which metrics are set, without Ray; tests/integration/test_watching.py reads them as Prometheus does."""

from __future__ import annotations

import time
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
    return telemetry.Telemetry("run", refresh_s=3600)


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


def test_the_figures_of_workers_that_were_lost_are_not_shown_as_those_of_now(
    shown: telemetry.Telemetry, step_row: Callable[..., dict], monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = []
    monkeypatch.setattr(shown._failures, "inc", lambda *arguments: counted.append(arguments))
    shown.show({"kind": "epoch", "validation": {"loss": 1.5}})
    shown.show(step_row())
    shown.show({"kind": "failure", "rank": 0, "reason": "gone"})
    assert counted == [(1, {"run": "run"})]
    for gauge in (*shown._step.values(), *shown._worker.values(), shown._validation):
        gauge.export()
    shown.refresh()
    assert not any(gauge.export() for gauge in (*shown._step.values(), *shown._worker.values()))
    assert shown._validation.export() == {"loss": 1.5}


def test_gauges_are_set_again_without_a_new_row(monkeypatch: pytest.MonkeyPatch, step_row: Callable[..., dict]) -> None:
    monkeypatch.setattr(telemetry, "Gauge", Gauge)
    shown = telemetry.Telemetry("run", refresh_s=0.1)
    shown.show(step_row(loss=2.0))
    shown._step["loss"].export()
    deadline = time.monotonic() + 20
    while not (again := shown._step["loss"].export()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert again == {None: 2.0}
