"""The contact sheet, pixel by pixel: which frames, where, upright and undistorted, and what stands for broken clips."""

from __future__ import annotations

import functools
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cast_ray.data.decoders.jpeg import encode_jpeg
from cast_ray.data.inspection.sheet import (
    CELL,
    GAP,
    LINE,
    MARGIN,
    PALE,
    PAPER,
    TEXT_WIDTH,
    contact_sheet,
    fitted,
    frame_numbers,
)
from cast_ray.data.media import Media, MediaFormat
from cast_ray.labels import LabelMap

CLIPS = Path(__file__).parents[2] / "clips"
NAMES = LabelMap({"label": ("short", "[a name] of " + "many words " * 30, "W" * 200)})
FIRST_ROW = MARGIN + LINE + MARGIN
"""Below a title of one line."""


@functools.cache
def shown(name: str) -> tuple[np.ndarray, ...]:
    """All frames of a real clip as a player shows them."""
    with av.open(str(CLIPS / name)) as container:
        frames = container.decode(container.streams.best("video"))
        return tuple(np.rot90(frame.to_ndarray(format="rgb24"), k=frame.rotation // 90) for frame in frames)


def tile(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC))


def part(sheet: Image.Image, cell: int, top: int, size: tuple[int, int]) -> np.ndarray:
    """What the sheet has in a cell of the row at `top`."""
    left = MARGIN + TEXT_WIDTH + cell * (CELL[0] + GAP)
    return np.asarray(sheet.crop((left, top, left + size[0], top + size[1])))


@pytest.fixture
def drawn(tmp_path, stored, written):
    """The sheet of one clip, by its file."""

    def drawn(file: str, frames: int = 6, **clip) -> Image.Image:
        media = Media(video=(CLIPS / file).read_bytes())
        dataset = written(tmp_path / "d", [stored("one", (0,), media=media, **clip)], NAMES)
        return contact_sheet(dataset, dataset.index, frames)

    return drawn


def test_a_row_shows_the_frames_of_the_clips_own_seconds_from_first_to_last(drawn):
    sheet = drawn("arm_wrestling_k400.mp4", window=(2.0, 5.0))
    assert sheet.width == MARGIN + TEXT_WIDTH + 6 * (CELL[0] + GAP) + MARGIN
    for cell, number in enumerate((56, 73, 89, 106, 122, 139)):  # 28 frames a second, 56 to 139
        expected = tile(shown("arm_wrestling_k400.mp4")[number], (191, 144))
        assert np.array_equal(part(sheet, cell, FIRST_ROW, (191, 144)), expected), cell


def test_rotated_frames_stand_upright_and_there_are_no_more_than_the_clip_has(drawn):
    sheet = drawn("rotated_90.mov")
    for cell in range(3):
        assert np.array_equal(part(sheet, cell, FIRST_ROW, (81, 144)), tile(shown("rotated_90.mov")[cell], (81, 144)))
    assert (part(sheet, 3, FIRST_ROW, (3 * CELL[0], 144)) == PAPER).all()


@pytest.mark.parametrize("reason", ["decode", "quarantine"])
def test_a_broken_clip_is_a_grey_field_with_its_reason(drawn, reason):
    sheet = drawn("corrupted.mp4", **({} if reason == "decode" else {"reason": "file is empty"}))
    field = part(sheet, 0, FIRST_ROW, (6 * CELL[0], CELL[1] // 2))
    corner = field[:MARGIN, :MARGIN]
    assert (corner == PALE).all()
    assert (field == 0).all(axis=-1).any()  # letters
    assert not (field == PAPER).all(axis=-1).any()


def jpeg(level: int) -> bytes:
    return encode_jpeg(np.full((30, 60, 3), level, np.uint8), 95)


@pytest.fixture
def jpegs(tmp_path, stored, written):
    """Clips of grey JPEG frames, some of them broken, with long names and ids."""
    frames = [jpeg(10 * number) for number in range(11)]
    frames[1:10:2] = [b"broken"] * 5  # of 11 frames the numbers 0, 2, 4, 6, 8, 10 are shown
    facts = {"num_frames": 11, "width": 60, "height": 30, "video_codec": "jpeg"}
    clips = [
        stored("spaces " * 40, (1,), media=Media(frames=tuple(frames)), **facts),
        stored("i" * 300, (2,), media=Media(frames=tuple(frames)), **facts),
        stored("two", (0,), media=Media(frames=(jpeg(0), jpeg(200))), **facts),
        stored("wide", (0,), media=Media(frames=(encode_jpeg(np.zeros((2, 900, 3), np.uint8), 90),) * 6), **facts),
    ]
    return written(tmp_path / "jpegs", clips, NAMES, MediaFormat(video="jpeg", sound="none"))


def test_jpeg_frames_are_decoded_only_where_they_are_shown(jpegs):
    sheet = contact_sheet(jpegs, jpegs.index.slice(0, 1))
    for cell in range(6):
        assert np.abs(part(sheet, cell, FIRST_ROW, (192, 96)).astype(int) - 20 * cell).max() <= 1, cell


def test_a_clip_of_two_stored_frames_shows_two(jpegs):
    sheet = contact_sheet(jpegs, jpegs.index.slice(2, 1))
    first, second, third = (part(sheet, cell, FIRST_ROW, (192, 96)) for cell in range(3))
    assert first.max() <= 1
    assert abs(int(second.min()) - 200) <= 1
    assert (third == PAPER).all()


def test_text_stays_in_its_column_and_rows_do_not_touch(jpegs):
    sheet = np.asarray(contact_sheet(jpegs, jpegs.index))
    paper = (sheet == PAPER).all(axis=-1)
    assert paper[FIRST_ROW:, TEXT_WIDTH : MARGIN + TEXT_WIDTH].all()  # between the text and the first frame
    assert paper[:, :MARGIN].all()
    for cell in range(1, 6):
        left = MARGIN + TEXT_WIDTH + cell * (CELL[0] + GAP)
        assert paper[FIRST_ROW:, left - GAP : left].all()
    heights = [
        contact_sheet(jpegs, jpegs.index.slice(number, 1)).height - FIRST_ROW - MARGIN
        for number in range(jpegs.index.num_rows)
    ]
    assert heights[0] == 7 * LINE  # four lines of the name, two of the id, one of the facts: higher than the frames
    assert heights[2] == 96
    top = FIRST_ROW
    for height in heights:
        assert not paper[top : top + height].all()
        assert paper[top + height : top + height + MARGIN].all()
        top += height + MARGIN
    assert top == sheet.shape[0]


@given(st.integers(1, 5000), st.integers(1, 16))
def test_frames_go_evenly_from_the_first_to_the_last(count, wanted):
    numbers = frame_numbers(count, wanted)
    assert len(numbers) == min(count, wanted)
    assert numbers[0] == 0
    if len(numbers) > 1:
        assert numbers[-1] == count - 1
        steps = np.diff(numbers)
        assert steps.min() >= 1
        assert steps.max() - steps.min() <= 1


@given(st.integers(1, 8000), st.integers(1, 8000))
def test_tiles_fit_their_cell_and_keep_the_aspect(width, height):
    fitted_width, fitted_height = fitted(width, height)
    assert fitted_width in range(1, CELL[0] + 1)
    assert fitted_height in range(1, CELL[1] + 1)
    assert fitted_width == CELL[0] or fitted_height == CELL[1]
    assert fitted_width == pytest.approx(fitted_height * width / height, abs=max(0.5, 0.5 * width / height) + 1e-6) or (
        1 in (fitted_width, fitted_height)
    )
