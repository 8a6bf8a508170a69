"""How sample clips become one picture: a row for each with frames from its begin to its end, and what it is."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from cast_ray.data.decode import Unreadable, frame_window, open_media
from cast_ray.data.inspection.summary import durations_s
from cast_ray.data.shards import ShardedDataset, read_media

__all__ = ["contact_sheet", "fitted", "frame_numbers"]

CELL = (192, 144)
"""Width and height that a frame is fitted into, in pixels."""
TEXT_WIDTH, MARGIN, GAP = 260, 12, 4
LINE, FONT_SIZE = 17, 14
LABEL_LINES, ID_LINES, REASON_LINES = 4, 2, 4
PAPER, BLACK, GREY, PALE = (236, 236, 236), (0, 0, 0), (100, 100, 100), (200, 200, 200)  # white frames must show


class _Line(NamedTuple):
    text: str
    colour: tuple[int, int, int]


def contact_sheet(dataset: ShardedDataset, rows: pa.Table, frames: int = 6) -> Image.Image:
    """A picture of the clips of `rows`; one that cannot be decoded has a grey field with the reason.

    Only the frames that are shown are decoded, and one clip at a time is in memory.

    Args:
        dataset: that the rows are from.
        rows: of its index, one or more.
        frames: in a row; fewer where a clip has fewer.

    Raises:
        UserError: a shard cannot be read.
    """
    width = MARGIN + TEXT_WIDTH + frames * (CELL[0] + GAP) + MARGIN
    title = f"{dataset.uri}: {rows.num_rows} of {dataset.index.num_rows:,} clips"
    strips = [_text_image([_Line(text, BLACK) for text in _wrapped(title, width - 2 * MARGIN, 2)], width - 2 * MARGIN)]
    for row, seconds in zip(rows.to_pylist(), durations_s(rows), strict=True):
        text = _text_image(_caption(dataset, row, float(seconds)), TEXT_WIDTH)
        try:
            tiles = [_fit(frame) for frame in _decoded(dataset, row, frames)]
        except Unreadable as error:
            tiles = [_grey(error.reason, frames)]
        strips.append(_beside([text, *tiles], width - 2 * MARGIN))
    height = MARGIN + sum(strip.height + MARGIN for strip in strips)
    sheet = Image.new("RGB", (width, height), PAPER)
    top = MARGIN
    for strip in strips:
        sheet.paste(strip, (MARGIN, top))
        top += strip.height + MARGIN
    return sheet


def frame_numbers(count: int, wanted: int) -> list[int]:
    """`wanted` frames of `count` from the first to the last, evenly; all of them if there are no more."""
    return np.unique(np.linspace(0, count - 1, min(wanted, count)).round().astype(int)).tolist()


def fitted(width: int, height: int) -> tuple[int, int]:
    """Width and height of a frame inside `CELL`, with its aspect."""
    scale = min(CELL[0] / width, CELL[1] / height)
    return max(round(width * scale), 1), max(round(height * scale), 1)


def _decoded(dataset: ShardedDataset, row: dict[str, Any], wanted: int) -> NDArray[np.uint8]:
    """Frames [T, H, W, 3] of a clip; raises `Unreadable`."""
    if row["num_frames"] is None:
        raise Unreadable(row["reason"])
    column = "frames" if dataset.format.video == "jpeg" else "video"
    media = read_media(dataset.uri, row["shard"], row["place"], (column,))
    if media.frames is not None:
        wanted = min(wanted, len(media.frames))
    video = open_media(media, num_frames=row["num_frames"], fps=row["fps"])
    first, count = frame_window(video, row["start_s"], row["stop_s"])
    return video.frames([first + number for number in frame_numbers(count, wanted)])


def _caption(dataset: ShardedDataset, row: dict[str, Any], seconds: float) -> list[_Line]:
    names = dataset.label_map.names
    label = ", ".join(classes[index] for index, classes in zip(row["labels"], names.values(), strict=True))
    known = [row["split"]]
    if np.isfinite(seconds):
        known.append(f"{seconds:.2f} s")
    if row["width"] is not None:
        known.append(f"{row['width']} x {row['height']}")
    return [
        *(_Line(text, BLACK) for text in _wrapped(label, TEXT_WIDTH - MARGIN, LABEL_LINES)),
        *(_Line(text, GREY) for text in _wrapped(row["clip_id"], TEXT_WIDTH - MARGIN, ID_LINES)),
        *(_Line(text, GREY) for text in _wrapped(", ".join(known), TEXT_WIDTH - MARGIN, ID_LINES)),
    ]


def _fit(frame: NDArray[np.uint8]) -> Image.Image:
    picture = Image.fromarray(frame)
    return picture.resize(fitted(*picture.size), Image.Resampling.BICUBIC)


def _grey(reason: str, cells: int) -> Image.Image:
    field = Image.new("RGB", (cells * (CELL[0] + GAP) - GAP, CELL[1] // 2), PALE)
    lines = [_Line(text, BLACK) for text in _wrapped(reason, field.width - 2 * MARGIN, REASON_LINES)]
    text = _text_image(lines, field.width - 2 * MARGIN, PALE)
    field.paste(text, (MARGIN, (field.height - text.height) // 2))
    return field


def _beside(pictures: Sequence[Image.Image], width: int) -> Image.Image:
    """The text, and the tiles in cells of their own."""
    strip = Image.new("RGB", (width, max(picture.height for picture in pictures)), PAPER)
    left = 0
    for place, picture in enumerate(pictures):
        strip.paste(picture, (left, 0))
        left += TEXT_WIDTH if place == 0 else CELL[0] + GAP
    return strip


def _text_image(lines: Sequence[_Line], width: int, background: tuple[int, int, int] = PAPER) -> Image.Image:
    picture = Image.new("RGB", (width, LINE * len(lines)), background)
    draw = ImageDraw.Draw(picture)
    for number, line in enumerate(lines):
        draw.text((0, number * LINE), line.text, fill=line.colour, font=_font())
    return picture


def _wrapped(text: str, width: int, most: int) -> list[str]:
    """The text in lines of at most `width` pixels; what does not fit into `most` lines ends in dots."""
    lines = [""]
    for word in text.split():
        if lines[-1] and _width(f"{lines[-1]} {word}") > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
        while _width(lines[-1]) > width:  # a word that is too long for any line
            whole = lines[-1]
            fits = next(end for end in range(len(whole) - 1, 0, -1) if end == 1 or _width(whole[:end]) <= width)
            lines[-1:] = [whole[:fits], whole[fits:]]
        if len(lines) > most:
            last = lines[most - 1]
            while last and _width(f"{last}...") > width:
                last = last[:-1]
            return [*lines[: most - 1], f"{last}..."]
    return lines


def _width(text: str) -> float:
    return _font().getlength(text)


@functools.cache
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(FONT_SIZE)
