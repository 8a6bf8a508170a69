"""Loading in a process of its own: the same as in this one, whatever happens to it."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cast_ray.data.loader import Wanted
from cast_ray.data.views import Sampling, TestViews
from cast_ray.inference.decode_process import DecodeProcess
from cast_ray.inference.parts import PartLoader

VIEW = TestViews(sampling=Sampling(kind="uniform", num_frames=4, stride=2, size=16), temporal_views=2, spatial_crops=3)
LOADER = PartLoader(
    view=VIEW, wanted=Wanted(frames=True, frames_per_step=2, sound_columns=50, sound_times=True), longest_s=12.0
)


@pytest.fixture
def process() -> Iterator[DecodeProcess]:
    process = DecodeProcess(LOADER)
    yield process
    process.close()


def pid(process: DecodeProcess) -> int:
    return process._process.pid


def test_it_loads_as_this_process_does_and_outlives_whatever_kills_it(process: DecodeProcess, clips: Path, monkeypatch):
    for clip in sorted(clips.glob("*.m*")):
        (expected,) = LOADER(str(clip))
        found = process.load(str(clip))
        assert (found.reason, found.facts) == (expected.reason, expected.facts)
        assert (found.content is None) == (expected.content is None)
        for column, values in (expected.content or {}).items():
            np.testing.assert_array_equal(found.content[column], values)
            assert found.content[column].dtype == values.dtype
    assert process.load(str(clips / "nasa_with_audio.mp4")).reason == "it lasts 13.0 s, at most 12 s are accepted"

    first = pid(process)
    os.kill(first, signal.SIGSEGV)  # a decoder that crashes
    crashed = process.load(str(clips / "rotated_90.mov"))
    assert crashed.content is None
    assert crashed.reason == "the decoder crashed on it (exit status -11)"
    assert process.load(str(clips / "rotated_90.mov")).content is not None

    second = pid(process)
    assert second != first
    os.kill(second, signal.SIGSTOP)  # one that never comes back
    monkeypatch.setattr("cast_ray.inference.decode_process.GRACE_S", -59.5)
    stuck = process.load(str(clips / "rotated_90.mov"))
    assert stuck.reason == "decoding did not finish within 60 s"
    monkeypatch.undo()
    with pytest.raises(ProcessLookupError):
        os.kill(second, 0)


def test_it_ends_when_nobody_can_ask_any_more():
    process = DecodeProcess(LOADER)
    process._process.stdin.close()
    try:
        assert process._process.wait(timeout=120) == 0
    except subprocess.TimeoutExpired:
        process._process.kill()
        raise
