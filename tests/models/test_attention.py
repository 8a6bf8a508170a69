"""Windowed attention against a literal loop over windows and heads."""

from __future__ import annotations

import pytest
import torch

from cast_ray.models.attention import SPACE, SPACE_TIME, TIME, windowed_attention

HEADS = 2


def same_window(window, a, b):
    """Whether grid positions a and b, each (step, location), may see each other."""
    return {TIME: a[1] == b[1], SPACE: a[0] == b[0], SPACE_TIME: True}[window]


@pytest.mark.parametrize("window", [TIME, SPACE, SPACE_TIME], ids=lambda window: "+".join(window.axes))
def test_every_token_sees_exactly_its_window(window):
    torch.manual_seed(0)
    steps, locations, width = 3, 4, 8
    query, key, value = (torch.randn(2, steps, locations, width) for _ in range(3))
    expected = torch.zeros_like(query)
    grid = [(t, n) for t in range(steps) for n in range(locations)]
    part = width // HEADS
    for b in range(2):
        for q in grid:
            seen = [k for k in grid if same_window(window, q, k)]
            for head in range(HEADS):
                channels = slice(head * part, (head + 1) * part)
                scores = torch.stack([query[b, *q, channels] @ key[b, *k, channels] for k in seen]) / part**0.5
                values = torch.stack([value[b, *k, channels] for k in seen])
                expected[b, *q, channels] = scores.softmax(0) @ values
    actual = windowed_attention(query, key, value, window=window, num_heads=HEADS)
    torch.testing.assert_close(actual, expected)


def test_joint_window_takes_grids_of_different_shape():
    query, other = torch.randn(2, 1, 5, 8), torch.randn(2, 3, 4, 8)
    actual = windowed_attention(query, other, other, window=SPACE_TIME, num_heads=HEADS)
    flat = other.reshape(2, 1, 12, 8)
    torch.testing.assert_close(actual, windowed_attention(query, flat, flat, window=SPACE, num_heads=HEADS))


@pytest.mark.parametrize("window", [TIME, SPACE, SPACE_TIME], ids=lambda window: "+".join(window.axes))
def test_keys_and_values_in_another_order_along_the_window_change_nothing(window):
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, 3, 4, 8) for _ in range(3))
    steps = [2, 0, 1] if "time" in window.axes else [0, 1, 2]
    places = [3, 1, 0, 2] if "space" in window.axes else [0, 1, 2, 3]
    moved = [x[:, steps][:, :, places] for x in (key, value)]
    expected = windowed_attention(query, key, value, window=window, num_heads=HEADS)
    torch.testing.assert_close(windowed_attention(query, *moved, window=window, num_heads=HEADS), expected)
