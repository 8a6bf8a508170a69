"""Windows over a long video: where they lie, what they show, and the timeline that they make."""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cast_ray.data.decode import UnreadableVideo
from cast_ray.data.loader import Wanted
from cast_ray.data.recording import Recording
from cast_ray.data.views import Sampling, TestViews
from cast_ray.errors import UserError
from cast_ray.inference import Recogniser
from cast_ray.inference.parts import PartLoader
from cast_ray.inference.sliding import slide, usual_window_s, video_clock, window_starts
from cast_ray.inference.timeline import Segment, Timeline, Window
from cast_ray.inference.timeline_plot import draw_timeline
from cast_ray.labels import LABEL, LabelMap

COLOURS = LabelMap({LABEL: ("red", "green", "blue")})
SAMPLING = Sampling(kind="uniform", num_frames=4, stride=2, size=16)


class ColourModel:
    """Stands for a model: a window's probabilities are the shares of red, green and blue in its frames."""

    label_map = COLOURS
    loader = PartLoader(
        view=TestViews(sampling=SAMPLING, temporal_views=1, spatial_crops=1), wanted=Wanted(frames=True)
    )
    views = loader.view
    spec = SimpleNamespace(needs=frozenset({"video"}))

    def __init__(self) -> None:
        self.batches: list[int] = []

    def probabilities(self, contents):
        self.batches.append(len(contents))
        sums = [content["frames"].astype(np.float64).sum(axis=(0, 1, 2, 3)) for content in contents]
        return [{LABEL: (one / one.sum()).astype(np.float32)} for one in sums]


def timeline(*tops: tuple[str, float] | None, stride: float = 1.0, length: float = 2.0) -> Timeline:
    """Windows with these best classes and probabilities; None cannot be read."""
    windows = []
    for index, top in enumerate(tops):
        values = None
        if top is not None:
            values = np.full(3, (1 - top[1]) / 2, np.float32)
            values[COLOURS.names[LABEL].index(top[0])] = top[1]
        windows.append(
            Window(
                start_s=stride * index,
                stop_s=stride * index + length,
                probabilities=None if values is None else {LABEL: values},
                reason="" if top else "it is damaged",
            )
        )
    return Timeline(
        video="video.mp4",
        label_map=COLOURS,
        windows=tuple(windows),
        window_s=length,
        stride_s=stride,
        seconds=windows[-1].stop_s,
    )


@given(end=st.floats(0.05, 5000), window=st.floats(0.1, 60), share=st.floats(0.05, 1.0))
def test_windows_leave_no_second_out_and_end_with_the_video(end: float, window: float, share: float):
    stride = window * share
    starts = window_starts(end, window, stride)
    assert starts[0] == 0
    assert starts[-1] + window == pytest.approx(max(end, window), rel=1e-5)
    assert all(0 < later - before <= stride * (1 + 1e-5) for before, later in itertools.pairwise(starts))


def test_windows_of_a_video_of_13_seconds():
    np.testing.assert_allclose(window_starts(13.0, 4.0, 2.0), [0, 2, 4, 6, 8, 9])
    np.testing.assert_allclose(window_starts(12.0, 4.0, 2.0), [0, 2, 4, 6, 8])
    np.testing.assert_allclose(window_starts(3.0, 4.0, 2.0), [0])


def test_colours_are_found_when_they_are_shown(coloured: Callable[..., Path], tmp_path: Path):
    path = coloured(tmp_path / "colours.mp4", ("red", 4), ("blue", 6), ("green", 2))
    model, told = ColourModel(), []
    found = slide(model, str(path), window_s=1.0, stride_s=0.5, batch=5, progress=lambda *done: told.append(done))
    assert found.seconds == pytest.approx(12.0)
    assert [(one.name, round(one.start_s, 1), round(one.stop_s, 1)) for one in found.segments(0.8)] == [
        ("red", 0.0, pytest.approx(4.0, abs=0.5)),
        ("blue", pytest.approx(4.0, abs=0.5), pytest.approx(10.0, abs=0.5)),
        ("green", pytest.approx(10.0, abs=0.5), 12.0),
    ]
    assert max(model.batches) == 5
    assert sum(model.batches) == len(found.windows) == 23
    assert told[-1] == (23, 23)


def test_the_whole_file_is_never_read(coloured: Callable[..., Path], tmp_path: Path, monkeypatch):
    path = coloured(tmp_path / "minutes.mp4", ("red", 60), ("green", 60))
    largest = []
    load = PartLoader._loaded

    def measured(self, stored):
        largest.append(stored.media.size)
        return load(self, stored)

    monkeypatch.setattr(PartLoader, "_loaded", measured)
    monkeypatch.setattr(Recording, "whole", lambda self: pytest.fail("read as a whole"))
    found = slide(ColourModel(), str(path), window_s=2.0, stride_s=10.0)
    assert [one.name for one in found.segments(0.8)] == ["red", "green"]
    assert max(largest) < path.stat().st_size / 10


def test_real_clips_of_every_kind_have_a_length(clips: Path, tmp_path: Path):
    assert video_clock(str(clips / "nasa_with_audio.mp4"))[0] == pytest.approx(13.013, abs=1e-3)
    assert video_clock(str(clips / "flipping_pancake_k400.mkv"))[0] == pytest.approx(10.333, abs=2e-3)
    assert video_clock(str(clips / "unordered_timestamps.mov"))[0] == pytest.approx(0.125, abs=1e-3)
    (tmp_path / "text.mp4").write_text("nothing to see")
    with pytest.raises(UnreadableVideo):
        video_clock(str(tmp_path / "text.mp4"))


def test_the_length_is_that_of_the_frames_where_the_sound_goes_on(coloured: Callable[..., Path], tmp_path: Path):
    import av

    silent, both = coloured(tmp_path / "short.mp4", ("red", 2)), tmp_path / "both.mp4"
    with av.open(str(silent)) as source, av.open(str(both), "w") as target:
        video = target.add_stream_from_template(source.streams.video[0])
        sound = target.add_stream("aac", rate=16_000, layout="mono")
        for packet in source.demux(source.streams.video[0]):
            if packet.size:
                packet.stream = video
                target.mux(packet)
        for start in range(0, 30 * 16_000, 1024):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            frame.sample_rate, frame.pts = 16_000, start
            target.mux(sound.encode(frame))
        target.mux(sound.encode(None))
    assert video_clock(str(both)) == (pytest.approx(2.0), pytest.approx(10.0))


def test_the_usual_window_is_what_the_model_was_trained_on(run, action_run):
    seeing, hearing = Recogniser.load(run.folder), Recogniser.load(action_run.folder)
    assert usual_window_s(seeing, 30.0) == 4.0  # uniform
    spectrogram_s = hearing.spec.audio.frames / 100
    assert usual_window_s(hearing, 30.0) == pytest.approx(max(4.0, spectrogram_s))
    dense = SimpleNamespace(
        spec=seeing.spec, views=SimpleNamespace(sampling=Sampling(kind="dense", num_frames=16, stride=4, size=16))
    )
    assert usual_window_s(dense, 25.0) == pytest.approx(64 / 25)
    assert usual_window_s(dense, 0.0) == pytest.approx(64 / 30)


@pytest.mark.parametrize(("window", "stride"), [(0, 1), (-1, 1), (1, 0), (float("nan"), 1), (1, float("inf"))])
def test_windows_without_a_length_are_refused(clips: Path, window: float, stride: float):
    with pytest.raises(UserError, match=r"(window|stride)-s is .*; give a number of seconds above 0"):
        slide(ColourModel(), str(clips / "rotated_90.mov"), window_s=window, stride_s=stride)


def test_neighbours_with_the_same_best_class_become_one_segment_and_doubt_leaves_a_gap():
    found = timeline(("red", 0.9), ("red", 0.7), ("blue", 0.8), ("blue", 0.4), ("blue", 0.8), ("green", 0.6))
    assert found.segments(0.5) == [
        Segment(field=LABEL, name="red", start_s=0.0, stop_s=2.5, probability=pytest.approx(0.8)),
        Segment(field=LABEL, name="blue", start_s=2.5, stop_s=3.5, probability=pytest.approx(0.8)),
        Segment(field=LABEL, name="blue", start_s=4.5, stop_s=5.5, probability=pytest.approx(0.8)),
        Segment(field=LABEL, name="green", start_s=5.5, stop_s=7.0, probability=pytest.approx(0.6)),
    ]
    assert [one.name for one in found.segments(0.3)] == ["red", "blue", "green"]


def test_a_part_that_cannot_be_read_interrupts_a_segment_and_is_told():
    found = timeline(("red", 0.9), None, ("red", 0.9))
    assert [(one.start_s, one.stop_s) for one in found.segments()] == [(0.0, 1.5), (2.5, 4.0)]
    values = json.loads(found.to_json(top=2))
    assert [window.get("note") for window in values["windows"]] == [None, "it is damaged", None]
    assert [len(window["top"][LABEL]) for window in values["windows"] if "top" in window] == [2, 2]


def test_csv_holds_the_segments():
    rows = list(csv.DictReader(io.StringIO(timeline(("red", 0.9), ("blue", 0.8)).to_csv())))
    assert rows == [
        {"start_s": "0.0", "stop_s": "1.5", "class": "red", "probability": "0.9", "field": "label"},
        {"start_s": "1.5", "stop_s": "3.0", "class": "blue", "probability": "0.8", "field": "label"},
    ]


def test_the_plot_has_the_strongest_classes_and_any_name_is_drawn_as_it_is(tmp_path: Path):
    odd = LabelMap({LABEL: ("cost $5 or $6", "a_b^c", "x" * 90)})
    windows = timeline(("red", 0.9), None, ("blue", 0.8)).windows
    drawn = Timeline(video="v", label_map=odd, windows=windows, window_s=2, stride_s=1, seconds=300)
    draw_timeline(drawn, [tmp_path / "plot.svg", tmp_path / "plot.png"])
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    text = (tmp_path / "plot.svg").read_text()
    assert "cost $5 or $6" in text.replace("\\$", "$")
    assert "a_b^c" in text
    assert "time (min:s)" in text
