"""How attention becomes a film: the clip beside what every exchange looks at in it, at the same time."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from cast_ray.data.synthetic.encode import encode_mp4
from cast_ray.explain.attention import AttentionMap
from cast_ray.explain.clip_attention import ClipAttention
from cast_ray.explain.overlay import COLOURS_MEAN, blended, draw_spectrogram, scale_top, step_heat
from cast_ray.explain.pictures import plain
from cast_ray.models.spec import AUDIO

__all__ = ["film"]

FRAMES_PER_SECOND = 4
"""Slower than life, so that one can look."""
DOTS_PER_INCH = 96
PANEL = 2.6
"""Inches of a frame's side."""
STRIP = 1.3
"""Inches of a spectrogram's height."""


def film(clip: ClipAttention) -> bytes:
    """An mp4 file: one picture for each frame that the network sees, exchanges in the last block that has them.

    Exchanges that look at video are shown on the frame, those that listen to sound below, on the spectrogram; a line
    there moves with the time of the frame.
    """
    last = [maps[-1] for maps in clip.maps.values()]
    seen = [one for one in last if one.answers.modality != AUDIO]
    heard = [one for one in last if one.answers.modality == AUDIO]
    top = scale_top(last)
    panels = 1 + len(seen)
    figure = Figure(
        figsize=(_even(PANEL * panels), _even(PANEL + 0.9 + STRIP * len(heard))),
        dpi=DOTS_PER_INCH,
        layout="constrained",
    )
    canvas = FigureCanvasAgg(figure)
    heights = [PANEL + 0.4, *[STRIP] * len(heard)]
    grid = figure.add_gridspec(len(heights), panels, height_ratios=heights)
    pictures = [_panel(figure.add_subplot(grid[0, place])) for place in range(panels)]
    for (axes, _), one in zip(pictures[1:], seen, strict=True):
        axes.set_title(f"{one.asks.expert} looks at {one.answers.expert}\nblock {one.block}", fontsize=8)
    cursors = [_strip(figure.add_subplot(grid[1 + row, :]), clip, one, top) for row, one in enumerate(heard)]
    figure.suptitle(f"{plain(clip.clip_id)}; {COLOURS_MEAN} (to {top:.2g} times)", fontsize=8)
    made = []
    for number, frame in enumerate(_frames(clip)):
        step = number // clip.step_frames
        pictures[0][0].set_title(f"frame {number + 1} of {len(_frames(clip))}, step {step + 1}\n", fontsize=8)
        pictures[0][1].set_data(frame)
        for (_, image), one in zip(pictures[1:], seen, strict=True):
            image.set_data(blended(frame, step_heat(one, step), top))
        for cursor in cursors:
            cursor.set_xdata([_second(clip, number)] * 2)
        canvas.draw()
        figure.set_layout_engine("none")  # the first picture's places hold for all, and cost the most
        made.append(np.asarray(canvas.buffer_rgba())[..., :3].copy())
    return encode_mp4(np.stack(made), frames_per_second=FRAMES_PER_SECOND, sound=None)


def _frames(clip: ClipAttention) -> NDArray[np.uint8]:
    if clip.frames is None:
        raise ValueError("the model takes no video")
    return clip.frames


def _panel(axes: Axes) -> tuple[Axes, AxesImage]:
    axes.set_xticks([])
    axes.set_yticks([])
    return axes, axes.imshow(np.zeros((2, 2, 3), np.uint8), extent=(0, 1, 0, 1))


def _strip(axes: Axes, clip: ClipAttention, one: AttentionMap, top: float) -> Line2D:
    draw_spectrogram(axes, clip, one, top)
    axes.set_ylabel("mel bin", fontsize=7)
    axes.set_title(f"{one.asks.expert} listens to {one.answers.expert}, block {one.block}; seconds below", fontsize=8)
    start, stop = axes.get_xlim()
    cursor = axes.axvline(start, color="black", linewidth=2)
    axes.set_xlim(start, stop)
    return cursor


def _second(clip: ClipAttention, number: int) -> float:
    """The middle of the time step that a frame is of; without a frame rate the line stays at the beginning."""
    return 0.0 if clip.step_times is None else float(clip.step_times[number // clip.step_frames].mean())


def _even(inches: float) -> float:
    """The next length whose pixels are a multiple of 4, as the encoder wants them."""
    return 4 * round(inches * DOTS_PER_INCH / 4) / DOTS_PER_INCH
