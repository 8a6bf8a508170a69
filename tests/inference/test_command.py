"""`cast-ray predict` from its words to what it prints, writes and returns."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cast_ray.errors import UserError
from cast_ray.inference import Recogniser
from cast_ray.inference.command import main
from cast_ray.inference.sources import find_clips


@pytest.fixture
def folder(clips: Path, tmp_path: Path) -> Path:
    """Two good clips, a damaged one, a text file, and files that are not looked at."""
    target = tmp_path / "clips"
    (target / "deeper" / ".hidden").mkdir(parents=True)
    shutil.copy(clips / "rotated_90.mov", target / "rotated.MOV")
    shutil.copy(clips / "unordered_timestamps.mov", target / "deeper")
    shutil.copy(clips / "corrupted.mp4", target)
    (target / "text.mp4").write_text("no video\n")
    (target / "notes.txt").write_text("nothing")
    (target / "deeper" / ".hidden" / "old.mp4").write_text("nothing")
    return target


def test_unreadable_clips_are_named_with_the_reason_the_others_are_predicted_and_the_status_says_so(
    run, folder: Path, capsys
):
    assert main([str(folder), "--checkpoint", str(run.folder), "--top", "2"]) == 1
    shown = capsys.readouterr()
    assert re.search(r"corrupted\.mp4: cannot be read: it is damaged: it opens, but frames cannot be", shown.out)
    assert re.search(r"text\.mp4: cannot be read: it is no video", shown.out)
    assert re.search(r"rotated\.MOV: 0\.1 s, 6 views", shown.out)
    assert re.search(r"unordered_timestamps\.mov: 0\.1 s, 6 views", shown.out)
    assert "2 of 4 clips could not be read" in shown.err
    assert len(re.findall(r"\d+\.\d%", shown.out)) == 2 * 2


def test_json_says_the_same_as_python(action_run, clips: Path, folder: Path, capsys):
    words = [str(clips / "nasa_with_audio.mp4"), str(folder / "text.mp4"), "--checkpoint", str(action_run.folder)]
    assert main([*words, "--json", "--top", "3", "--views", "1", "1"]) == 1
    good, bad = json.loads(capsys.readouterr().out)
    model = Recogniser.load(action_run.folder, views=(1, 1))
    assert good == model.predict(str(clips / "nasa_with_audio.mp4")).to_dict(3)
    assert list(good["top"]) == ["verb", "noun", "action"]
    assert good["views"] == 1
    assert set(bad) == {"clip", "error"}


def test_class_names_are_printed_as_they_are(run, clips: Path, capsys):
    assert main([str(clips / "rotated_90.mov"), "--checkpoint", str(run.folder), "--top", "99"]) == 0
    assert "turn [bold]left[/]" in capsys.readouterr().out


def test_sliding_prints_segments_and_writes_the_timeline(run, coloured: Callable[..., Path], tmp_path: Path, capsys):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    videos = [str(coloured(tmp_path / name / "day.mp4", ("red", 3), ("blue", 3))) for name in ("a", "b")]
    words = [*videos, "--checkpoint", str(run.folder), "--sliding", "--window-s", "2", "--threshold", "0"]
    assert main([*words, "--output", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    assert "6.0 s, 5 windows of 2.00 s, one every 1.00 s" in shown
    expected = {f"day{number}.{kind}" for number in ("", "-2") for kind in ("json", "csv", "png", "svg")}
    assert {path.name for path in (tmp_path / "out").iterdir()} == expected
    values = json.loads((tmp_path / "out" / "day.json").read_text())
    rows = list(csv.DictReader((tmp_path / "out" / "day.csv").open(newline="")))
    assert [row["class"] for row in rows] == [segment["class"] for segment in values["segments"]]
    assert rows[0]["start_s"] == "0.0"
    assert rows[-1]["stop_s"] == "6.0"
    for row in rows:
        assert row["class"] in shown


def test_sliding_over_something_that_is_no_video_gives_the_reason(run, folder: Path, capsys):
    assert main([str(folder / "text.mp4"), "--checkpoint", str(run.folder), "--sliding"]) == 1
    assert "cannot be read: it is no video" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{folder}/missing.mp4"], r"missing\.mp4' does not exist; give video files"),
        (["{folder}/deeper/.hidden/.."], None),
        (["{empty}"], r"'.*empty' has no videos \(files that end in \.mp4"),
        ([], "no clips are given"),
        (["{folder}", "--top", "0"], r"--top is 0"),
        (["{folder}", "--window-s", "3"], r"--window-s goes with --sliding"),
        (["{folder}", "--sliding", "--output", "s3://b/x"], r"--output is 's3://b/x'; give a folder of this machine"),
        (["{folder}", "--views", "0", "1"], r"views are 0 x 1"),
        (["{folder}", "--checkpoint", "{empty}"], "neither a checkpoint"),
        (["{folder}", "--checkpoint", "nowhere"], "there is no checkpoint at '.*nowhere'"),
        (["{folder}", "--chekpoint", "x"], r"unknown flag --chekpoint; did you mean --checkpoint"),
    ],
)
def test_mistakes_are_answered_in_one_line(run, folder: Path, tmp_path: Path, words: list[str], message: str | None):
    (tmp_path / "empty").mkdir()
    words = [word.format(folder=folder, empty=tmp_path / "empty") for word in words]
    if "--checkpoint" not in words:
        words += ["--checkpoint", str(run.folder)]
    if message is None:  # a folder that is written in a roundabout way
        assert main(words) == 0
        return
    with pytest.raises(UserError, match=message) as caught:
        main(words)
    assert "\n" not in str(caught.value)


def test_a_clip_that_is_given_twice_is_predicted_once(folder: Path):
    clip = str(folder / "rotated.MOV")
    assert find_clips([clip, str(folder), clip]).count(clip) == 1


def test_a_file_that_may_not_be_read_stops_no_other_and_a_storage_that_is_away_stops_all(
    run, folder: Path, capsys, monkeypatch
):
    real = Recogniser.predict

    def predict(self, clip, **asked):
        if clip.endswith("text.mp4"):
            raise UserError("no access") from cause
        return real(self, clip, **asked)

    monkeypatch.setattr(Recogniser, "predict", predict)
    words = [str(folder / name) for name in ("text.mp4", "rotated.MOV")]
    words += ["--checkpoint", str(run.folder), "--json"]
    cause: OSError = PermissionError(13, "Permission denied")
    assert main(words) == 1
    first, second = json.loads(capsys.readouterr().out)
    assert first["error"] == "file does not exist or may not be read"
    assert "top" in second
    cause = ConnectionResetError(104, "Connection reset by peer")
    with pytest.raises(UserError, match="no access"):
        main(words)


def test_names_of_all_kinds_are_found_or_said_to_be_left_out(tmp_path: Path):
    from cast_ray.data.storage import filesystem

    (tmp_path / "a b#1.mp4").touch()
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.mp4")).touch()
    said: list[str] = []
    assert find_clips([str(tmp_path)], say=said.append) == [f"{tmp_path}/a b#1.mp4"]
    assert said == [f"left out of {tmp_path}: 1 file names that are not UTF-8 text"]
    (uri,) = find_clips([f"file://{tmp_path}"])
    assert filesystem(uri)[1] == f"{tmp_path}/a b#1.mp4"


def test_clips_in_a_bucket_are_found_and_predicted(run, s3_bucket: str, clips: Path, capsys):
    import pyarrow.fs as pafs

    storage, bucket = pafs.FileSystem.from_uri(s3_bucket)
    with storage.open_output_stream(f"{bucket}/some/clip.mov") as sink:
        sink.write((clips / "rotated_90.mov").read_bytes())
    assert find_clips([f"{s3_bucket}/some"]) == [f"{s3_bucket}/some/clip.mov"]
    assert main([f"{s3_bucket}/some", "--checkpoint", str(run.folder), "--json"]) == 0
    (answer,) = json.loads(capsys.readouterr().out)
    expected = Recogniser.load(run.folder).predict(clips / "rotated_90.mov")
    assert answer["top"] == expected.to_dict()["top"]
