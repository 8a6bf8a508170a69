"""How charts become picture files: PNG and SVG, by matplotlib, without a browser."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cast_ray.errors import UserError
from cast_ray.report.charts import COLOURS, BarChart, Chart, LineChart, MatrixChart, shortened
from cast_ray.report.interactive import LOSS_COLOUR

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["ENDINGS", "write_pictures"]

ENDINGS = (".png", ".svg")
DPI, WIDTH_IN, ROW_IN = 160, 7.0, 0.2
LABEL_CHARACTERS, MOST_LABELS, MOST_COUNTED = 40, 60, 12
STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "svg.fonttype": "none",  # text stays text: it can be searched, and edited in a paper
    "svg.hashsalt": "cast_ray",  # the same numbers give the same file
}


def write_pictures(charts: Mapping[str, Chart], folder: Path) -> list[Path]:
    """Write every chart as NAME.png and NAME.svg; of a matrix its first order is drawn. Returns the files.

    Args:
        charts: by the name of the file.
        folder: made if it is missing; files of the same names are replaced.

    Raises:
        UserError: the folder cannot be written.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, chart in charts.items():
            with mpl.rc_context(STYLE):
                # Not through pyplot, which would keep every figure and choose a display.
                figure = Figure(figsize=_size(chart), layout="constrained")
                axes = figure.subplots()
                axes.set_title(chart.title, loc="left", fontsize=10)
                _draw(chart, axes)
                for ending in ENDINGS:
                    metadata = {"Date": None} if ending == ".svg" else None
                    figure.savefig(folder / f"{name}{ending}", dpi=DPI, metadata=metadata)
                    figure.set_layout_engine("none")  # the places are found; again would be half of the time
                    written.append(folder / f"{name}{ending}")
    except OSError as error:
        raise UserError(f"cannot write pictures to '{folder}': {error}; give a folder that you may write to") from error
    return written


def _size(chart: Chart) -> tuple[float, float]:
    if isinstance(chart, LineChart):
        return WIDTH_IN, 3.6
    if isinstance(chart, BarChart):
        per_row = ROW_IN * (1 if chart.dots else max(1.0, 0.7 * len(chart.series)))
        return WIDTH_IN, 1.2 + per_row * len(chart.labels) if chart.horizontal else 3.6
    side = min(max(4.5, 2.5 + 0.18 * len(_shown(chart))), 10.0)
    return side + 0.6, side


def _draw(chart: Chart, axes: Axes) -> None:
    if isinstance(chart, LineChart):
        _draw_lines(chart, axes)
    elif isinstance(chart, BarChart):
        _draw_bars(chart, axes)
    else:
        _draw_matrix(chart, axes)


def _draw_lines(chart: LineChart, axes: Axes) -> None:
    for line in chart.lines:
        faint = line.style == "faint"
        axes.plot(
            *zip(*line.points, strict=True),
            color=COLOURS[line.colour % len(COLOURS)],
            linewidth=0.7 if faint else 1.6,
            alpha=0.35 if faint else 1.0,
            linestyle="--" if line.style == "dashed" else "-",
            marker="o" if len(line.points) <= MOST_LABELS and not faint else None,
            markersize=3,
            label=_plain(line.name) if line.listed else None,
        )
    axes.set_xlabel(chart.x)
    axes.set_ylabel(chart.y)
    if chart.fraction:
        axes.set_ylim(0, 1.03)
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    axes.grid(alpha=0.25)
    _legend(axes, sum(line.listed for line in chart.lines))


def _draw_bars(chart: BarChart, axes: Axes) -> None:
    places, count = np.arange(len(chart.labels)), len(chart.series)
    for index, bars in enumerate(chart.series):
        colour, values = COLOURS[bars.colour % len(COLOURS)], np.array(bars.values)
        if chart.dots:
            xy = (values, places) if chart.horizontal else (places, values)
            axes.plot(*xy, "o", color=colour, alpha=0.85, markersize=4, label=_plain(bars.name))
            continue
        colours: Any = [colour if value >= 0 else LOSS_COLOUR for value in values] if bars.name == "gain" else colour
        width = 0.8 / count
        at = places - 0.4 + (index + 0.5) * width
        ends = np.abs(np.array(bars.ends).T - values) if bars.ends else None
        error: dict[str, Any] = {"ecolor": "#7a8699", "error_kw": {"linewidth": 1, "capsize": 2}}
        if chart.horizontal:
            axes.barh(at, values, width, color=colours, xerr=ends, label=_plain(bars.name), **error)
        else:
            axes.bar(at, values, width, color=colours, yerr=ends, label=_plain(bars.name), **error)
    labels = [_plain(shortened(label, LABEL_CHARACTERS)) for label in chart.labels]
    if chart.horizontal:
        axes.set_yticks(places, labels)
        axes.set_ylim(len(places) - 0.5, -0.5)
        axes.set_xlabel(chart.value)
    else:
        if len(labels) <= MOST_LABELS:
            turned = max(map(len, labels)) * len(labels) > MOST_LABELS
            axes.set_xticks(places, labels, rotation=90 if turned else 0)
        else:
            axes.set_xticks([])
        axes.set_xlim(-0.5, len(places) - 0.5)
        axes.set_ylabel(chart.value)
    if chart.limits is not None:
        (axes.set_xlim if chart.horizontal else axes.set_ylim)(*chart.limits)
        for artist in axes.lines:
            artist.set_clip_on(False)
    axes.set_axisbelow(True)
    axes.grid(axis="x" if chart.horizontal else "y", alpha=0.25)
    _legend(axes, count)


def _draw_matrix(chart: MatrixChart, axes: Axes) -> None:
    order = np.array(_shown(chart))
    place = np.full(len(chart.names), -1)
    place[order] = np.arange(len(order))
    cells = np.asarray(chart.cells)
    cells = cells[(place[cells[:, 0]] >= 0) & (place[cells[:, 1]] >= 0)]
    share = np.full((len(order), len(order)), np.nan)
    rows, columns = place[cells[:, 0]], place[cells[:, 1]]
    share[rows, columns] = cells[:, 2] / chart.support[cells[:, 0]]
    image = axes.imshow(share, cmap="Blues", vmin=-0.15, vmax=1)  # the palest cell differs from an empty one
    if len(order) <= MOST_COUNTED:
        for row, column, clips in zip(rows, columns, cells[:, 2], strict=True):
            colour = "white" if share[row, column] > 0.5 else "black"
            axes.text(column, row, str(clips), ha="center", va="center", color=colour, fontsize=8)
    labels = [_plain(shortened(chart.names[index], LABEL_CHARACTERS)) for index in order]
    if len(order) <= MOST_LABELS:
        axes.set_xticks(range(len(order)), labels, rotation=90)
        axes.set_yticks(range(len(order)), labels)
    else:
        axes.set_xticks([])
        axes.set_yticks([])
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    bar = axes.figure.colorbar(image, ax=axes, shrink=0.7, boundaries=np.linspace(0, 1, 101), ticks=[0, 0.5, 1])
    bar.ax.set_yticklabels(["0 %", "50 %", "100 %"])


def _shown(chart: MatrixChart) -> tuple[int, ...]:
    return next(iter(chart.orders.values()))


def _legend(axes: Axes, entries: int) -> None:
    if entries > 1:
        axes.legend(frameon=False, fontsize=8, ncols=min(entries, 3), loc="lower left", bbox_to_anchor=(0, 1.06))
        axes.set_title(axes.get_title(loc="left"), loc="left", fontsize=10, y=1.0)


def _plain(text: str) -> str:
    """Text that matplotlib shows as it is: a dollar would begin a formula, and an underscore hide a legend entry."""
    return text.replace("$", r"\$") if not text.startswith("_") else f" {text}".replace("$", r"\$")
