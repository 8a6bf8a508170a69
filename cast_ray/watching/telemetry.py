"""Which figures of a run Ray exports for Prometheus; on the metrics port of its node, with `ray_` before each name."""

from __future__ import annotations

import threading
import time

from ray.util.metrics import Counter, Gauge

from cast_ray.watching.rows import Row

__all__ = ["Telemetry"]

OF_STEP = {
    "step": "Updates done",
    "epoch": "Epochs done",
    "loss": "Mean loss since the last row",
    "learning_rate": "Learning rate of the last update",
    "grad_norm": "Gradient norm of the last update, before clipping",
    "clips_per_s": "Clips per second over all workers",
    "data_wait": "Share of the workers' time spent waiting for data, 0 to 1",
    "bad_clips": "Different clips that could not be read",
    "seconds_left": "Seconds until the last update, at the present speed",
}
"""Fields of step rows, each a gauge of the run."""
OF_WORKER = {
    "clips_per_s": "Clips per second of one worker",
    "data_wait": "Share of a worker's time spent waiting for data, 0 to 1",
    "memory": "Resident memory of one worker in bytes",
    "gpu_memory": "Most memory that one worker has held on its GPU, in bytes",
}
"""Fields of `workers` in step rows, each a gauge of one worker."""


class Telemetry:
    """Sets Ray's metrics, again and again while the process lives: Ray exports a gauge for 20 s after it was set.

    So a run that has ended is not shown as one that goes; but for the counter, which Ray keeps as long as the node.

    Args:
        run: name of the run, a tag of every metric.
        refresh_s: seconds after which all gauges are set again.
    """

    def __init__(self, run: str, refresh_s: float = 5.0) -> None:
        self._run = {"run": run}
        self._step = {name: Gauge(f"cast_ray_{name}", text, tag_keys=("run",)) for name, text in OF_STEP.items()}
        self._worker = {
            name: Gauge(f"cast_ray_worker_{name}", text, tag_keys=("run", "worker")) for name, text in OF_WORKER.items()
        }
        self._validation = Gauge("cast_ray_validation", "Result of the last validation", tag_keys=("run", "metric"))
        self._failures = Counter("cast_ray_failures", "Times that workers were lost", tag_keys=("run",))
        self._now: dict[str, list[tuple[Gauge, float, dict[str, str]]]] = {}
        self._lock = threading.Lock()
        self._refresh_s = refresh_s
        threading.Thread(target=self._keep, name="telemetry", daemon=True).start()

    def show(self, row: Row) -> None:
        """Export what a row says, instead of what the one of its kind before has said."""
        with self._lock:
            if row["kind"] == "step":
                self._now["step"] = [
                    (gauge, float(row[name]), self._run) for name, gauge in self._step.items() if row[name] is not None
                ]
                self._now["step"] += [
                    (gauge, float(value), self._run | {"worker": str(rank)})
                    for name, gauge in self._worker.items()
                    for rank, value in enumerate(row["workers"][name])
                ]
            elif row["kind"] == "epoch":
                self._now["epoch"] = [
                    (self._validation, float(value), self._run | {"metric": name})
                    for name, value in row["validation"].items()
                ]
            elif row["kind"] == "failure":
                self._failures.inc(1, self._run)
                self._now.pop("step", None)  # nobody trains now
        self.refresh()

    def refresh(self) -> None:
        """Set all gauges again."""
        with self._lock:
            for gauges in self._now.values():
                for gauge, value, tags in gauges:
                    gauge.set(value, tags)

    def _keep(self) -> None:
        while True:
            time.sleep(self._refresh_s)
            self.refresh()
