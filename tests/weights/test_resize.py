"""Resized tables of positions: equal to timm's, open_clip's and transformers' own resizing, and to AST's cut."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from cast_ray.weights.resize import (
    resize_image_grid,
    resize_spectrogram_grid,
    resize_time,
    spectrogram_grid,
    square_grid,
)


@pytest.fixture
def table():
    return torch.randn(1 + 49, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("side", [4, 7, 14])
def test_image_grid_is_resized_as_in_timm(table, side):
    from timm.layers import resample_abs_pos_embed

    expected = resample_abs_pos_embed(table[None], [side, side], num_prefix_tokens=1)[0]
    torch.testing.assert_close(resize_image_grid(table, (7, 7), (side, side), special=1), expected)


@pytest.mark.parametrize("side", [4, 14])
def test_image_grid_is_resized_as_in_open_clip(table, side):
    from open_clip.model import resize_pos_embed

    name = "visual.positional_embedding"
    states = {name: table.clone()}
    resize_pos_embed(states, SimpleNamespace(visual=SimpleNamespace(grid_size=(side, side))))
    torch.testing.assert_close(resize_image_grid(table, (7, 7), (side, side), special=1), states[name])


def test_half_precision_stays_and_is_computed_in_float32(table):
    half = resize_image_grid(table.half(), (7, 7), (14, 14), special=1)
    assert half.dtype == torch.half
    torch.testing.assert_close(
        half.float(), resize_image_grid(table, (7, 7), (14, 14), special=1), atol=5e-3, rtol=5e-3
    )


@pytest.mark.parametrize("columns", [1, 39, 100, 101])
def test_fewer_columns_are_the_middle_ones(columns):
    table = torch.randn(2 + 12 * 101, 4)
    start = 50 - columns // 2  # Gong et al.'s release: half of 101, minus half of the new width, both rounded down
    found = resize_spectrogram_grid(table, (12, 101), (12, columns), special=2)
    assert torch.equal(found[:2], table[:2])
    expected = table[2:].view(12, 101, 4)[:, start : start + columns]
    assert torch.equal(found[2:].view(12, columns, 4), expected)


def test_more_columns_are_bilinear():
    table = torch.randn(2 + 12 * 101, 4)
    found = resize_spectrogram_grid(table, (12, 101), (12, 150), special=2)
    image = table[2:].t().reshape(1, 4, 12, 101)
    expected = F.interpolate(image, size=(12, 150), mode="bilinear")[0].flatten(1).t()
    torch.testing.assert_close(found[2:], expected)


def test_square_table_of_an_image_model_is_cut_along_both_axes():
    table = torch.arange(2.0 + 24 * 24)[:, None]
    found = resize_spectrogram_grid(table, (24, 24), (12, 39), special=2)
    # Columns grow to 39 of 24, rows are the middle twelve of 24; stretching a row keeps its mean.
    expected = table[2:].view(24, 24)[6:18].mean(dim=1)
    torch.testing.assert_close(found[2:].view(12, 39).mean(dim=1), expected)


def test_time_is_linear_and_keeps_the_ends():
    line = torch.tensor([[0.0, 8.0], [4.0, 0.0]])
    found = resize_time(line, 4)
    assert torch.equal(found, torch.tensor([[0.0, 8.0], [1.0, 6.0], [3.0, 2.0], [4.0, 0.0]]))
    assert torch.equal(resize_time(found, 4), found)


def test_grids_are_told_from_the_number_of_patches():
    assert square_grid(196) == (14, 14)
    assert square_grid(195) is None
    assert spectrogram_grid(1212, patch_size=16, stride=10, rows=12) == (12, 101)
    assert spectrogram_grid(512, patch_size=16, stride=16, rows=8) == (8, 64)
    assert spectrogram_grid(35, patch_size=16, stride=10, rows=5) == (5, 7)
    assert spectrogram_grid(120, patch_size=16, stride=10, rows=5) == (12, 10)
    assert spectrogram_grid(120, patch_size=16, stride=10, rows=5, published=False) == (5, 24)
    assert spectrogram_grid(1212, patch_size=16, stride=10, rows=5, published=False) == (12, 101)
    assert spectrogram_grid(35, patch_size=16, stride=10, rows=4) is None
