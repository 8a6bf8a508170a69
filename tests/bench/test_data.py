"""`cast-ray bench data`: which paths are measured, how they are compared, and what is told when it cannot be done."""

from __future__ import annotations

import json

import pytest

from cast_ray.bench import apart, command, data, data_clips
from cast_ray.bench.data import compared
from cast_ray.bench.data_clips import Inputs
from cast_ray.errors import UserError


def _result(speed: float, processor: float) -> dict:
    return {"clips_per_second": speed, "processor_seconds_per_clip": processor}


def test_the_best_turn_counts_and_ratios_are_to_the_first_dataloader():
    turns = {
        "dataloader-pil": [_result(4.0, 0.5), _result(5.0, 0.4), _result(3.0, 0.6)],
        "jpeg": [_result(90.0, 0.02), _result(100.0, 0.025), {"reason": "too slow"}],
    }
    paths = compared(turns, workers=2)
    assert paths["dataloader-pil"]["median_clips_per_second"] == 4.0
    assert paths["dataloader-pil"]["ratio"] == {"clips_per_second": 1.0, "processor_seconds_per_clip": 1.0}
    jpeg = paths["jpeg"]
    assert (jpeg["clips_per_second"], jpeg["clips_per_second_per_worker"]) == (100.0, 50.0)
    assert jpeg["ratio"] == {"clips_per_second": 20.0, "processor_seconds_per_clip": pytest.approx(20.0)}


def test_without_the_first_dataloader_there_are_no_ratios():
    paths = compared({"dataloader-pil": [{"reason": "died"}], "jpeg": [_result(90.0, 0.02)]}, workers=2)
    assert paths["dataloader-pil"] == {"reason": "died"}
    assert "ratio" not in paths["jpeg"]


@pytest.fixture
def pretended(monkeypatch, tmp_path):
    """No clips are made and nothing is measured; the last path of every turn fails."""
    (tmp_path / "video.mp4").touch()
    done = []

    def run_apart(function, job, *, time_limit):
        done.append((function.__name__, job.path, job.files))
        if job.path == "jpeg":
            raise apart.NoResultError("no memory")
        return {"views": {}} if job.path == "views" else _result(8.0, 0.25)

    def make_inputs(videos, folder, kind, clips):
        return Inputs(files=(f"{kind.seconds}",) * clips, datasets={}, described={"clips": clips})

    monkeypatch.setattr(apart, "run_apart", run_apart)
    monkeypatch.setattr(data_clips, "make_inputs", make_inputs)
    return tmp_path, done


def test_every_path_has_its_turns_and_one_that_fails_says_why(pretended, capsys):
    folder, done = pretended
    flags = ["--clips", str(folder), "--repeats", "2", "--clips-per-path", "8", "--kinds", "something", "kinetics"]
    assert command.main(["data", *flags, "--paths", "dataloader-pil", "views", "jpeg"]) == 0
    printed = capsys.readouterr()
    turn = [("measure_path", "dataloader-pil"), ("measure_views", "views"), ("measure_path", "jpeg")]
    assert done == [(*each, (seconds,) * 8) for seconds in ("3.0", "10.0") for each in 2 * turn]
    report = json.loads(printed.out)
    assert report["environment"]["torch"]
    assert report["kinds"]["kinetics"]["clips"] == {"clips": 8}
    paths = report["kinds"]["kinetics"]["paths"]
    assert paths["dataloader-pil"]["clips_per_second_per_worker"] == 4.0
    assert paths["jpeg"] == {"reason": "no memory"}
    assert "no memory" in printed.err


def test_the_status_is_1_if_nothing_could_be_measured(pretended, capsys):
    folder, _ = pretended
    assert command.main(["data", "--clips", str(folder), "--paths", "jpeg"]) == 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--seconds", "0"], "--seconds is 0"),
        (["--repeats", "0"], "--repeats is 0"),
        (["--batch", "8", "--clips-per-task", "20"], "--clips-per-task is 20 and --batch 8"),
        (["--batch", "8", "--clips-per-path", "60"], "--clips-per-path is 60 and --batch 8"),
        (["--clips", "/nowhere"], "--clips is /nowhere"),
    ],
)
def test_mistakes_are_told_before_anything_runs(monkeypatch, flags, message):
    monkeypatch.setattr(apart, "run_apart", lambda *_, **__: pytest.fail("it ran"))
    with pytest.raises(UserError, match=message):
        command.main(["data", *flags])


def test_an_installed_package_asks_for_clips(monkeypatch, tmp_path):
    monkeypatch.setattr(data, "OWN_CLIPS", tmp_path / "tests" / "clips")
    with pytest.raises(UserError, match="give --clips FOLDER"):
        command.main(["data"])
