"""How a table of positions is made for another number of patches or time steps.

Legend: S special tokens in front, N patches, D width, U time steps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Grid", "resize_image_grid", "resize_spectrogram_grid", "resize_time", "spectrogram_grid", "square_grid"]

Grid = tuple[int, int]
"""Rows and columns of patches."""

MEL_BINS = 128
"""Height of the spectrograms of every published AST."""


def resize_image_grid(table: Tensor, old: Grid, new: Grid, *, special: int) -> Tensor:
    """A table [S + N, D] of image patches for another grid: bicubic with antialiasing, as timm and open_clip do it."""
    return _over_patches(table, special, old, lambda grid: _interpolate(grid, new, "bicubic"))


def resize_spectrogram_grid(table: Tensor, old: Grid, new: Grid, *, special: int) -> Tensor:
    """A table [S + N, D] of spectrogram patches (frequency rows, time columns) for another grid, as AST's release does.

    Fewer columns: the middle ones, because the length of a column does not change. More: bilinear. Rows likewise.
    """

    def resize(grid: Tensor) -> Tensor:
        for axis in (3, 2):
            have, want = grid.shape[axis], new[axis - 2]
            if want <= have:
                grid = grid.narrow(axis, have // 2 - want // 2, want)
            else:
                shape = (grid.shape[2], want) if axis == 3 else (want, grid.shape[3])
                grid = _interpolate(grid, shape, "bilinear")
        return grid

    return _over_patches(table, special, old, resize)


def resize_time(table: Tensor, steps: int) -> Tensor:
    """A table [U, D] of time steps for another number of them: linear."""
    line = table.float().t()[None]
    return F.interpolate(line, size=steps, mode="linear")[0].t().to(table.dtype)


def square_grid(patches: int) -> Grid | None:
    """The grid of a square image with so many patches, None if there is none."""
    side = round(patches**0.5)
    return (side, side) if side > 0 and side * side == patches else None


def spectrogram_grid(patches: int, *, patch_size: int, stride: int, rows: int, published: bool = True) -> Grid | None:
    """The grid that a table of so many spectrogram patches was made for, None if it cannot be told.

    A table does not say how many of its patches are above each other. Published ones have the rows of 128 mel bins at
    the expert's own stride (12 at stride 10); any other is taken to have as many rows as the expert. Of a table that
    is not `published` but ours the expert's rows are tried first.
    """
    usual = (MEL_BINS - patch_size) // stride + 1
    for count in (usual, rows) if published else (rows, usual):
        if count > 0 and patches % count == 0:
            return count, patches // count
    return None


def _over_patches(table: Tensor, special: int, old: Grid, resize: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply `resize` to the patches of a table as [1, D, rows, columns] in float32; special tokens stay."""
    front, patches = table[:special], table[special:]
    grid = resize(patches.float().reshape(1, *old, -1).permute(0, 3, 1, 2))
    return torch.cat([front, grid[0].flatten(1).t().to(table.dtype)])


def _interpolate(grid: Tensor, size: Grid, mode: Literal["bilinear", "bicubic"]) -> Tensor:
    """[1, D, rows, columns] at another size; antialiasing is for images only."""
    return F.interpolate(grid, size=size, mode=mode, antialias=mode == "bicubic", align_corners=False)
