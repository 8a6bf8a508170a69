"""How attention is drawn: on the frames and the spectrogram that are looked at, over time, block by block.

Colours say how much attention a place gets in multiples of an even look: 1, without colour, is what every place would
get if the expert looked everywhere alike; red is more, blue is less, on a logarithmic scale.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure, SubFigure
from numpy.typing import NDArray

from cast_ray.explain.attention import AttentionMap
from cast_ray.explain.clip_attention import ClipAttention
from cast_ray.explain.pictures import GREY, plain
from cast_ray.models.spec import AUDIO
from cast_ray.report.charts import COLOURS

__all__ = [
    "COLOURS_MEAN",
    "blended",
    "blocks_figure",
    "draw_spectrogram",
    "entropy_figure",
    "over_time_figure",
    "overview_figure",
    "scale_top",
    "step_heat",
    "title_of",
]

Pixels = NDArray[np.uint8]
Heat = NDArray[np.float32]

COLOUR_MAP = "coolwarm"
OPACITY = 0.55
"""Of the colours over the picture."""
TOP = 99.0
"""Percentile of the distances from an even look at which the colour scale ends: one hot place must not pale others."""
LEAST_TOP = 1.25
"""The scale is never shorter, so that nearly even looks appear as such."""
LEFT = 1.3
"""Inches for the names of rows."""
CELL = 0.95
"""Inches of a frame's side."""
WIDE = 8.0
"""Inches of a spectrogram."""
CHARACTERS_PER_INCH = 15
EVEN = "attention received\n(1 = evenly spread)"
COLOURS_MEAN = "red: more attention than evenly spread, blue: less"

WINDOW_WORDS = {
    ("time",): "each place asks the same place at all times",
    ("space",): "each place asks all places at the same time",
    ("time", "space"): "each place asks all places at all times",
}


def title_of(one: AttentionMap) -> str:
    """What an exchange is, in words."""
    return f"What the {one.asks.expert} expert looks at in the {one.answers.expert} expert"


def blocks_figure(clip: ClipAttention, maps: Sequence[AttentionMap]) -> Figure:
    """What one exchange looks at, a row for each block; a column for each time step if it looks at video."""
    first = maps[0]
    top = scale_top(maps)
    subtitle = f"{first.name}: {WINDOW_WORDS[first.window.axes]}; mean over heads and over the places that ask"
    heading = f"{title_of(first)}\n{plain(clip.clip_id)}"
    if first.answers.modality == AUDIO:
        figure = _figure(WIDE + LEFT, 1.5 * (1 + len(maps)) + 1.6, heading, subtitle)
        rows = np.atleast_1d(figure.subplots(1 + len(maps), 1, sharex=True))
        draw_spectrogram(rows[0], clip, None, top)
        for axes, one in zip(rows[1:], maps, strict=True):
            draw_spectrogram(axes, clip, one, top)
            axes.set_ylabel(f"block {one.block}\nmel bin")
        rows[0].set_ylabel("sound\nmel bin")
        rows[-1].set_xlabel("seconds of the clip")
        _colour_bar(figure, rows.tolist(), top)
        return figure
    steps = len(clip.shown_frames)
    figure = _figure(CELL * steps + LEFT + 0.9, CELL * (1 + len(maps)) + 1.7, heading, subtitle)
    grid = figure.subplots(1 + len(maps), steps, squeeze=False)
    draw_steps(grid[0], clip, None, top)
    _name_steps(grid[0], clip)
    _name_row(grid[0, 0], "frames")
    for row, one in zip(grid[1:], maps, strict=True):
        draw_steps(row, clip, one, top)
        _name_row(row[0], f"block {one.block}")
    _colour_bar(figure, grid.reshape(-1).tolist(), top)
    return figure


def overview_figure(clip: ClipAttention) -> Figure:
    """What every exchange looks at in the last block that has it: on the frames, and on the spectrogram."""
    last = [maps[-1] for maps in clip.maps.values()]
    seen = [one for one in last if one.answers.modality != AUDIO]
    heard = [one for one in last if one.answers.modality == AUDIO]
    steps = len(clip.shown_frames)
    cell = min(1.5, max(CELL, 6.0 / steps))
    width = max(cell * steps, 6.0) + LEFT + 1.8  # beside the colour bar room for names, which frames do not give
    heights = [cell * (1 + len(seen)) + 0.5, *([1.45 * (1 + len(heard)) + 0.3] if heard else [])]
    figure = Figure(figsize=(width, sum(heights) + 1.0), layout="constrained")
    verdict = "\n".join(textwrap.wrap(plain(clip.verdict), int(width * CHARACTERS_PER_INCH * 0.8)))
    figure.suptitle(f"{plain(clip.clip_id)}\n{verdict}", fontsize=10)
    figure.supxlabel(f"{COLOURS_MEAN}; mean over heads and over the places that ask", fontsize=8, color=GREY)
    parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    grid = parts[0].subplots(1 + len(seen), steps, squeeze=False)
    draw_steps(grid[0], clip, None, 1.0)
    _name_steps(grid[0], clip)
    _name_row(grid[0, 0], "frames")
    top = scale_top(last)
    for row, one in zip(grid[1:], seen, strict=True):
        draw_steps(row, clip, one, top)
        _name_row(row[0], f"{one.asks.expert}\nlooks at\n{one.answers.expert}\n(block {one.block})")
    if seen:
        _colour_bar(parts[0], grid.reshape(-1).tolist(), top)
    if heard:
        rows = np.atleast_1d(parts[1].subplots(1 + len(heard), 1, sharex=True))
        draw_spectrogram(rows[0], clip, None, top)
        rows[0].set_ylabel("sound\nmel bin", fontsize=8)
        for axes, one in zip(rows[1:], heard, strict=True):
            draw_spectrogram(axes, clip, one, top)
            axes.set_ylabel(f"{one.asks.expert}\nlistens to\n{one.answers.expert}\n(block {one.block})", fontsize=8)
        rows[-1].set_xlabel("seconds of the clip", fontsize=8)
        _colour_bar(parts[1], rows.tolist(), top)
    return figure


def over_time_figure(clip: ClipAttention, maps: Sequence[AttentionMap]) -> Figure | None:
    """When one exchange looks: a matrix for each block; None if its windows have one time step only."""
    matrices = [one.over_time for one in maps]
    # In multiples of an even look, as everything else.
    found = [matrix[0].numpy() * matrix.shape[2] for matrix in matrices if matrix is not None]
    if not found:
        return None
    first, columns = maps[0], min(4, len(maps))
    rows = -(-len(maps) // columns)
    asks, answers = first.asks, first.answers
    figure = _figure(
        2.5 * columns + 1.8,
        2.5 * rows + 1.5,
        f"When the {asks.expert} expert looks at the {answers.expert} expert\n{plain(clip.clip_id)}",
        f"{first.name}: a row is a time that asks, a column a time that is looked at",
    )
    grid = figure.subplots(rows, columns, squeeze=False).reshape(-1)
    top = _top(np.concatenate([matrix.reshape(-1) for matrix in found]))
    for axes, one, matrix in zip(grid, maps, found, strict=False):
        axes.imshow(matrix, cmap=COLOUR_MAP, norm=LogNorm(1 / top, top, clip=True), aspect="auto")
        axes.set_title(f"block {one.block}", fontsize=9)
        axes.set_xlabel(f"{_bin_word(answers.modality)} ({answers.expert})", fontsize=8)
        axes.set_ylabel(f"{_bin_word(asks.modality)} ({asks.expert})", fontsize=8)
        for axis, count in ((axes.xaxis, matrix.shape[1]), (axes.yaxis, matrix.shape[0])):
            every = max(1, count // 8)
            axis.set_ticks(range(0, count, every), [str(place + 1) for place in range(0, count, every)], fontsize=7)
    for axes in grid[len(found) :]:
        axes.axis("off")
    _colour_bar(figure, grid.tolist(), top, "attention\n(1 = evenly spread)")
    return figure


def entropy_figure(entropy: Mapping[str, Sequence[float | None]], *, of: str) -> Figure:
    """How evenly every exchange looks, by block.

    Args:
        entropy: by exchange, as `cast_ray.explain.clip_attention.mean_entropy`.
        of: what it is of, for the title.
    """
    figure = Figure(figsize=(7.2, 4.0), layout="constrained")
    axes = figure.subplots()
    axes.set_title(f"How evenly each exchange looks\n{plain(of)}", fontsize=10)
    depth = max(map(len, entropy.values()))
    for place, (name, values) in enumerate(entropy.items()):
        points = [(block, value) for block, value in enumerate(values, start=1) if value is not None]
        axes.plot(*zip(*points, strict=True), marker="o", color=COLOURS[place % len(COLOURS)], label=_arrow(name))
    axes.set_xlabel("block")
    axes.set_xticks(range(1, depth + 1))
    axes.set_ylabel("entropy, share of the largest\n(1 = everywhere alike, 0 = one place)")
    axes.set_ylim(min(0.9, min(v for values in entropy.values() for v in values if v is not None) - 0.02), 1.005)
    axes.grid(color="#dfe4ec")
    axes.set_axisbelow(True)
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5), title="who is looked at -> who looks")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def scale_top(maps: Sequence[AttentionMap]) -> float:
    """Where the colour scale of these maps ends, in multiples of an even look; it begins at the inverse of that."""
    return _top(np.concatenate([one.received[0].numpy().reshape(-1) for one in maps]))


def blended(picture: Pixels, heat: Heat, top: float) -> Pixels:
    """A picture [H, W, 3] in grey under the colours of values [rows, columns]."""
    height, width = picture.shape[:2]
    rows = np.arange(height) * heat.shape[0] // height
    columns = np.arange(width) * heat.shape[1] // width
    scaled = LogNorm(1 / top, top, clip=True)(np.maximum(heat, 1 / top))
    colours = colormaps[COLOUR_MAP](scaled[rows][:, columns])[..., :3]
    grey = picture.mean(axis=2, keepdims=True) / 255
    return np.rint(255 * ((1 - OPACITY) * grey + OPACITY * colours)).astype(np.uint8)


def step_heat(one: AttentionMap, step: int) -> Heat:
    """[rows, columns] what the places of one time step of the expert that is looked at receive."""
    rows, columns = one.answers.layout.grid
    return one.received[0, step].reshape(rows, columns).numpy()


def draw_steps(row: Sequence[Axes] | NDArray, clip: ClipAttention, one: AttentionMap | None, top: float) -> None:
    """A row of frames, one for each time step, with what they receive; plain without a map."""
    for step, (axes, frame) in enumerate(zip(row, clip.shown_frames, strict=True)):
        axes.imshow(frame if one is None else blended(frame, step_heat(one, step), top))
        axes.set_xticks([])
        axes.set_yticks([])


def draw_spectrogram(axes: Axes, clip: ClipAttention, one: AttentionMap | None, top: float) -> None:
    """The spectrogram in grey, low tones below, with what its places receive; without a map plain."""
    if clip.spectrogram is None or clip.sound_times is None:
        raise ValueError("the clip has no sound")
    start, stop = clip.sound_times.tolist()
    bins, columns = clip.spectrogram.shape
    sound = clip.spectrogram[:, : clip.sound_columns]
    low, high = np.percentile(sound, [2, 99.5])
    grey = np.clip((clip.spectrogram - low) / max(high - low, 1e-6), 0, 1)
    picture = np.repeat((255 * grey).astype(np.uint8)[..., None], 3, axis=2)
    if one is not None:
        picture = blended(picture, step_heat(one, 0), top)
    axes.imshow(picture, origin="lower", aspect="auto", extent=(start, stop, 0, bins))
    end = start + (stop - start) * clip.sound_columns / columns
    if clip.sound_columns < columns:
        axes.axvline(end, color="white", linestyle=":", linewidth=1)
        axes.text(end, bins * 0.93, " padding", color="white", fontsize=7, va="top")
    axes.tick_params(labelsize=7)


def _top(values: Heat) -> float:
    away = np.abs(np.log(np.maximum(values, 1e-6)))
    return max(LEAST_TOP, float(np.exp(np.percentile(np.minimum(away, np.log(10)), TOP))))


def _figure(width: float, height: float, heading: str, subtitle: str) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle(heading, fontsize=11)
    lines = textwrap.wrap(f"{subtitle}; {COLOURS_MEAN}", int(width * CHARACTERS_PER_INCH))
    figure.supxlabel("\n".join(lines), fontsize=8, color=GREY)
    return figure


def _colour_bar(figure: Figure | SubFigure, axes: list[Axes], top: float, label: str = EVEN) -> None:
    colours = ScalarMappable(LogNorm(1 / top, top), COLOUR_MAP)
    bar = figure.colorbar(colours, ax=axes, shrink=0.9, aspect=30, extend="both")
    marks = [1 / top, top**-0.5, 1.0, top**0.5, top]
    bar.set_ticks(marks, labels=[f"{mark:.2g}" for mark in marks], fontsize=7)
    bar.minorticks_off()
    bar.set_label(label, fontsize=8)


def _name_steps(row: NDArray, clip: ClipAttention) -> None:
    for step, axes in enumerate(row):
        title = f"step {step + 1}"
        if clip.step_times is not None:
            start, stop = clip.step_times[step].tolist()
            title += f"\n{start:.2f}-{stop:.2f} s"
        axes.set_title(title, fontsize=7)


def _name_row(axes: Axes, text: str) -> None:
    axes.set_ylabel(text, rotation=0, ha="right", va="center", fontsize=8)


def _bin_word(modality: str) -> str:
    return "column of sound" if modality == AUDIO else "time step"


def _arrow(name: str) -> str:
    return name.replace("_to_", " -> ")
