"""Files of annotations and videos: times, paths and folders."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cast_ray.data.catalog.files import VideoFolder, below, find_annotation, seconds
from cast_ray.errors import UserError


@given(
    hours=st.integers(0, 99),
    minutes=st.integers(0, 59),
    whole=st.integers(0, 59),
    digits=st.text("0123456789", max_size=6),
)
def test_a_time_is_its_seconds_however_many_digits_it_has(hours, minutes, whole, digits):
    """ "03.5" is half a second, not 5 thousandths: the official files have two and three digits."""
    text = f"{hours:02d}:{minutes:02d}:{whole:02d}" + (f".{digits}" if digits else "")
    expected = 3600 * hours + 60 * minutes + whole + (int(digits) / 10 ** len(digits) if digits else 0)
    assert seconds(text, "x") == pytest.approx(expected, abs=1e-9)


@given(st.decimals(0, 100_000, places=3))
def test_a_number_of_seconds_is_taken_as_it_is(value):
    assert seconds(str(value), "x") == float(value)


@pytest.mark.parametrize(
    "text", ["", "00:60:00", "00:00:60", "00:00:61.5", "00:1:00", "01:02", "-1", "nan", "inf", "1e3", "1:2:3:4", "1,5"]
)
def test_impossible_times_are_refused(text):
    with pytest.raises(UserError, match="must be HH:MM:SS"):
        seconds(text, "x")


@pytest.mark.parametrize("name", ["", ".", "..", "../a", "a/../../b", "/a", "a/.."])
def test_paths_that_lead_out_of_the_folder_are_refused(name):
    with pytest.raises(UserError, match="give a path below the video folder"):
        below(name, "file, line 1")


@given(st.lists(st.text("ab.-_ ", min_size=1).filter(lambda part: part not in (".", "..")), min_size=1, max_size=4))
def test_other_paths_stay_below(parts):
    path = os.path.join("/videos", below("/".join(parts), "x"))
    assert os.path.normpath(path).startswith("/videos/")


@pytest.fixture
def folder(tmp_path):
    for file in ("a.mp4", "train/b.webm", "train/b.mp4", "train/x/c.avi", "val/x/c.MKV", "1/2/3/deep.mp4", "notes.txt"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    return tmp_path


def test_a_bare_name_is_found_in_any_subfolder_and_a_path_where_it_says(folder):
    videos = VideoFolder.scan(folder)
    assert videos.find("a") == str(folder / "a.mp4")
    assert videos.find("b") == str(folder / "train/b.mp4")
    assert videos.find("val/x/c") == str(folder / "val/x/c.MKV")
    assert videos.find("x/b", "nothing", "train/b", "a") == str(folder / "train/b.mp4")
    assert videos.find("notes") is None
    assert videos.find("deep") is None


def test_a_name_that_two_subfolders_have_is_refused(folder):
    with pytest.raises(UserError, match=r"more than one video 'c': train/x/c.avi, val/x/c.MKV; keep the right one"):
        VideoFolder.scan(folder).find("c")


def test_two_annotation_files_for_one_purpose_are_refused(tmp_path):
    for name in ("val.csv", "validate.csv"):
        (tmp_path / name).touch()
    with pytest.raises(UserError, match=r"has val.csv and validate.csv; keep only"):
        find_annotation(tmp_path, "val.csv", "validate.csv")
