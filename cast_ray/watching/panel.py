"""How a run looks on a terminal while it goes on: one panel that stays in place, and above it what is worth keeping."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.panel import Panel as Frame
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from cast_ray.watching.lines import accuracies, amount, describe, mean, rate, time_left
from cast_ray.watching.rows import Row
from cast_ray.watching.startup import DATA, MODEL, STEP, WORKERS, Startup

__all__ = ["Panel"]

REFRESH_PER_S = 2
WIDTH = 100
LOSSES = 30
"""Rows whose loss the curve shows."""
SILENT_S = 60.0
"""Seconds without a row after which the panel says so."""
BARS = " ▁▂▃▄▅▆▇█"
NEXT = {WORKERS: "loading the network", MODEL: "waiting for the first clips", DATA: "computing the first step"}
"""What is done after a milestone."""


class Panel:
    """Shows steps in the panel, and every other row as a line above it.

    Args:
        console: a terminal.
        name: of the run.
        epochs: of the whole run.
        steps: updates of the whole run.
        startup: milestones that the driver has passed.
    """

    def __init__(self, console: Console, *, name: str, epochs: int, steps: int, startup: Startup) -> None:
        self._name, self._epochs, self._steps, self._startup = name, epochs, steps, startup
        self._began = self._heard = time.time()
        self._doing = "waiting for the workers"
        self._step: Row | None = None
        self._validation: Row | None = None
        self._losses: deque[float] = deque(maxlen=LOSSES)
        self._console = console
        self._bars = BARS if console.encoding.startswith("utf") else " .:-=+*#@"
        self._live = Live(get_renderable=self._render, console=console, refresh_per_second=REFRESH_PER_S)
        self._live.start()

    def show(self, row: Row) -> None:
        self._startup.take(row)
        self._heard = time.time()
        if row["kind"] == "step":
            self._step, self._doing = row, ""
            self._losses.append(row["loss"])
            return
        if row["kind"] == "reached":
            self._doing = NEXT.get(row["milestone"], "")
            if row["milestone"] == STEP:
                self._console.print(f"  {self._startup}", highlight=False)
            return
        if row["kind"] == "epoch":
            self._validation = row
        if row["kind"] == "failure":
            self._doing = "waiting for the workers"
        self._console.print(describe(row), highlight=False, soft_wrap=True)

    def close(self) -> None:
        self._live.stop()

    def _render(self) -> Frame:
        silent = time.time() - self._heard
        parts = [self._progress(), self._figures()]
        footer = f"nothing heard for {time_left(silent)}" if silent > SILENT_S else None
        return Frame(
            Group(*parts),
            title=escape(self._name),
            title_align="left",
            subtitle=footer,
            subtitle_align="right",
            width=min(WIDTH, self._console.width),
            border_style="yellow" if footer else "dim",
        )

    def _progress(self) -> Table:
        row = self._step
        done, epoch = (row["step"], row["epoch"]) if row else (0, 0.0)
        table = Table.grid(padding=(0, 2), expand=True)
        table.add_column(no_wrap=True)
        table.add_column(ratio=1)
        table.add_column(no_wrap=True, justify="right")
        table.add_row(
            f"epoch [bold]{epoch:.2f}[/] of {self._epochs}",
            ProgressBar(total=self._steps, completed=done),
            f"step [bold]{done}[/] of {self._steps}",
        )
        return table

    def _figures(self) -> Table:
        table = Table.grid(padding=(0, 2))
        table.add_column(style="dim", no_wrap=True)
        table.add_column()
        elapsed = time_left(time.time() - self._began)
        row = self._step
        if row is not None:
            left = time_left(row["seconds_left"] - (time.time() - self._heard))
            table.add_row("time", f"[bold]{left}[/] left, {elapsed} so far")
        if self._doing:
            table.add_row("now", f"{self._doing}; {self._startup}" if not self._startup.done else self._doing)
        if row is not None:
            self._add_step(table, row)
        if self._validation is not None:
            table.add_row("validation", f"epoch {self._validation['epoch']}: {accuracies(self._validation)}")
        return table

    def _add_step(self, table: Table, row: Row) -> None:
        workers = row["workers"]
        norm = "none" if row["grad_norm"] is None else f"{row['grad_norm']:.2f}"
        curve = _bars(self._losses, self._bars, low=min(self._losses))
        table.add_row("loss", f"[bold]{row['loss']:.3f}[/]  {curve}")
        table.add_row("lr", f"{row['learning_rate']:.2e}, gradient norm {norm}")
        each = workers["clips_per_s"]
        slowest = f", slowest {rate(min(each))} (worker {each.index(min(each))})" if len(each) > 1 else ""
        table.add_row(
            "clips/s", f"[bold]{rate(row['clips_per_s'])}[/]  {len(each)} workers, {rate(mean(each))} each{slowest}"
        )
        waits = workers["data_wait"]
        most = f"at most {max(waits):.0%} (worker {waits.index(max(waits))})"
        by_worker = f"  by worker |{_bars(waits, self._bars, high=1.0)}| {most}" if len(waits) > 1 else ""
        table.add_row("data wait", f"[bold]{row['data_wait']:.0%}[/]{by_worker}")
        memory, gpu_memory = workers["memory"], workers["gpu_memory"]
        gpu = f", GPU at most {amount(max(gpu_memory))}" if max(gpu_memory) else ""
        table.add_row("memory", f"at most {amount(max(memory))} a worker{gpu}")
        table.add_row("bad clips", Text(str(row["bad_clips"]), style="yellow" if row["bad_clips"] else ""))


def _bars(values: Sequence[float] | deque[float], bars: str, *, low: float = 0.0, high: float | None = None) -> str:
    """One character for each value, from a blank at `low` to a full one at `high` (the largest, if None)."""
    high = max(values) if high is None else high
    scale = (len(bars) - 1) / max(high - low, 1e-12)
    return "".join(bars[min(len(bars) - 1, max(0, round((value - low) * scale)))] for value in values)
