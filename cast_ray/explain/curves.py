"""How robustness is shown: a picture of curves, a table on the terminal, and files for other programs."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich import box
from rich.table import Table

from cast_ray.evaluation.bootstrap import Interval
from cast_ray.explain.corruptions import Corruption
from cast_ray.explain.pictures import GREY, encoded
from cast_ray.explain.robustness import CLEAN, Level, Robustness
from cast_ray.labels import ACTION
from cast_ray.report.charts import COLOURS

__all__ = ["curves_figure", "curves_table", "files", "mistakes_table", "to_csv", "to_dict"]

COLUMNS = 4
CSV_HEADER = (
    "corruption",
    "level",
    "unit",
    "of",
    "accuracy",
    "low",
    "high",
    "change",
    "change_low",
    "change_high",
    "chance",
)


def files(found: Robustness) -> dict[str, bytes]:
    """Contents of the files that are written, by name."""
    figure = curves_figure(found)
    return {
        "robustness.png": encoded(figure, "png"),
        "robustness.svg": encoded(figure, "svg"),
        "robustness.csv": to_csv(found).encode(),
        "robustness.json": json.dumps(to_dict(found), indent=2).encode(),
    }


def to_dict(found: Robustness) -> dict[str, Any]:
    """Everything, as plain values; accuracies and changes are fractions."""
    return {
        "model": found.model,
        "checkpoint": found.checkpoint,
        "clips": found.num_clips,
        "confidence_level": found.confidence,
        "notes": list(found.notes),
        "chance": {name: found.chance(name) for name in found.measured},
        "clean": {name: _interval(found.accuracy(name, CLEAN)) for name in found.measured},
        "curves": [
            {
                "corruption": corruption.name,
                "does": corruption.does,
                "asks": corruption.asks,
                "unit": corruption.unit,
                "points": [
                    {
                        "level": level,
                        "accuracy": {name: _interval(found.accuracy(name, at)) for name in found.measured},
                        "change": {name: _interval(found.change(name, at)) for name in found.measured},
                    }
                    for level in corruption.levels
                    for at in [Level(corruption.name, level)]
                ],
                "mistakes_at_strongest": {
                    field: [vars(one) for one in found.mistakes(field, _strongest(corruption))]
                    for field in found.label_map.fields
                },
            }
            for corruption in found.corruptions
        ],
    }


def to_csv(found: Robustness) -> str:
    """One row for every accuracy; the clean ones have an empty corruption and level."""
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow(CSV_HEADER)
    for name in found.measured:
        clean = found.accuracy(name, CLEAN)
        writer.writerow(["", "", "", name, clean.value, clean.low, clean.high, "", "", "", found.chance(name)])
    for corruption, at in _levels(found):
        for name in found.measured:
            one, change = found.accuracy(name, at), found.change(name, at)
            figures = (one.value, one.low, one.high, change.value, change.low, change.high, found.chance(name))
            writer.writerow([corruption.name, at.level, corruption.unit, name, *figures])
    return sink.getvalue()


def curves_table(found: Robustness) -> Table:
    """A row for every level of damage: accuracies, and their changes from the undamaged clips."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("damage")
    table.add_column("level", justify="right")
    for name in found.measured:
        table.add_column(name, justify="right")
        table.add_column("change", justify="right")
    clean = [cell for name in found.measured for cell in (_percent(found.accuracy(name, CLEAN)), "")]
    table.add_row("none", "", *clean, end_section=True)
    for corruption, at in _levels(found):
        cells = []
        for name in found.measured:
            change = found.change(name, at)
            cells += [
                _percent(found.accuracy(name, at)),
                f"{100 * change.value:+.1f} {'*' if change.excludes_zero else ' '}",
            ]
        first, last = at.level == corruption.levels[0], at.level == corruption.levels[-1]
        unit = "dB" if "dB" in corruption.unit else "%"
        table.add_row(
            corruption.name if first else "", f"{corruption.label(at.level)} {unit}", *cells, end_section=last
        )
    chance = [cell for name in found.measured for cell in (f"{100 * found.chance(name):.1f}", "")]
    table.add_row("[dim]guessing[/]", "", *(f"[dim]{cell}[/]" for cell in chance))
    return table


def mistakes_table(found: Robustness) -> Table | None:
    """What classes are taken for where the strongest damage falls below guessing: a systematic error, not a loss."""
    table = Table(box=box.SIMPLE_HEAD, title="below guessing: what is taken for what", title_justify="left")
    for title in ("damage", "of", "true", "taken for", "clips"):
        table.add_column(title)
    for corruption in found.corruptions:
        at = _strongest(corruption)
        for field in found.label_map.fields:
            if found.accuracy(field, at).high < found.chance(field):
                for one in found.mistakes(field, at):
                    table.add_row(corruption.name, field, one.true, one.predicted, f"{one.clips} of {one.of}")
    return table if table.row_count else None


def curves_figure(found: Robustness) -> Figure:
    """One panel for every kind of damage, one line for every accuracy, with its confidence interval."""
    panels = len(found.corruptions) + 1  # the last one has the legend
    columns = min(COLUMNS, panels)
    rows = -(-panels // columns)
    figure = Figure(figsize=(3.8 * columns, 3.1 * rows + 0.5), layout="constrained")
    figure.suptitle(f"{found.model}: top-1 accuracy on {found.num_clips} damaged clips", fontsize=13, fontweight="bold")
    grid = figure.subplots(rows, columns, squeeze=False).reshape(-1)
    for axes, corruption in zip(grid, found.corruptions, strict=False):
        _panel(axes, found, corruption)
    for axes in grid[::columns]:
        axes.set_ylabel("top-1, %")
    for axes in grid[len(found.corruptions) :]:
        axes.axis("off")
    legend = grid[len(found.corruptions)]
    for name, colour in _coloured(found):
        legend.plot([], [], color=colour, marker="o", label=f"{name} (verb and noun)" if name == ACTION else name)
    legend.fill_between([], [], color=GREY, alpha=0.2, label=f"{100 * found.confidence:g}% confidence interval")
    legend.plot([], [], color=GREY, linestyle=":", label="guessing")
    legend.legend(loc="center", frameon=False, fontsize=11)
    return figure


def _panel(axes: Axes, found: Robustness, corruption: Corruption) -> None:
    places = [CLEAN, *(Level(corruption.name, level) for level in corruption.levels)]
    axes.set_title(f"{corruption.name}: {corruption.does}\n", fontsize=10, fontweight="bold")
    axes.text(0.5, 1.03, corruption.asks, transform=axes.transAxes, ha="center", fontsize=9, color=GREY)
    for name, colour in _coloured(found):
        points = [found.accuracy(name, at) for at in places]
        low, high = [100 * one.low for one in points], [100 * one.high for one in points]
        axes.fill_between(range(len(points)), low, high, color=colour, alpha=0.18, linewidth=0)
        axes.plot([100 * one.value for one in points], color=colour, marker="o", markersize=4)
        axes.axhline(100 * found.chance(name), color=colour, linestyle=":", linewidth=1)
    axes.set_xticks(range(len(places)), ["none", *(corruption.label(level) for level in corruption.levels)])
    axes.set_xlabel(corruption.unit)
    axes.set_ylim(-3, 103)
    axes.grid(axis="y", color="#dfe4ec")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _coloured(found: Robustness) -> Iterator[tuple[str, str]]:
    for place, name in enumerate(found.measured):
        yield name, COLOURS[place % len(COLOURS)]


def _levels(found: Robustness) -> Iterator[tuple[Corruption, Level]]:
    for corruption in found.corruptions:
        for level in corruption.levels:
            yield corruption, Level(corruption.name, level)


def _strongest(corruption: Corruption) -> Level:
    return Level(corruption.name, corruption.levels[-1])


def _interval(one: Interval) -> dict[str, float]:
    return {"value": one.value, "low": one.low, "high": one.high}


def _percent(one: Interval) -> str:
    return f"{100 * one.value:.1f} [dim]{100 * one.low:.0f} to {100 * one.high:.0f}[/]"
