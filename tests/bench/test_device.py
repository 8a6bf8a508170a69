"""What the device is said to do: rates, memory, and what it is."""

from __future__ import annotations

import pytest
import torch

from cast_ray.bench import device as measured

CPU = torch.device("cpu")


def test_the_rate_counts_the_multiply_adds_of_the_product(monkeypatch):
    monkeypatch.setattr(measured, "timed", lambda device, action: 0.5)
    assert measured.matmul_rate(CPU, torch.float32, repeats=1, side=64) == 64**3 / 0.5


def test_the_rate_is_that_of_the_fastest_product_after_the_first_two(monkeypatch):
    seconds = iter([0.001, 0.001, 0.5, 0.25, 1.0])
    monkeypatch.setattr(measured, "timed", lambda device, action: next(seconds))
    assert measured.matmul_rate(CPU, torch.float32, repeats=3, side=64) == 64**3 / 0.25


def test_peak_memory_rises_with_what_is_used_and_starts_anew():
    size = 64 * 2**20
    measured.reset_peak_memory(CPU)
    before = measured.peak_memory(CPU)
    block = torch.ones(size // 4)
    assert measured.peak_memory(CPU) - before == pytest.approx(size, rel=0.2)
    del block
    high = measured.peak_memory(CPU)
    measured.reset_peak_memory(CPU)
    assert measured.peak_memory(CPU) < high - size // 2


def test_the_description_names_hardware_and_versions():
    described = measured.describe(CPU)
    assert described["torch"] == torch.__version__.partition("+")[0]
    assert described["device"]
    assert described["cuda"] is None
