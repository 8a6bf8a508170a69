"""Files of annotations: times, folders, and text that is none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cast_ray.data.catalog.files import find_annotation, read_csv, read_json, seconds
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


def test_two_annotation_files_for_one_purpose_are_refused(tmp_path):
    for name in ("val.csv", "validate.csv"):
        (tmp_path / name).touch()
    with pytest.raises(UserError, match=r"has val.csv and validate.csv; keep only"):
        find_annotation(tmp_path, "val.csv", "validate.csv")


@pytest.mark.parametrize("header", ["clip,label,label", "label,clip,start_s,label"])
def test_a_column_that_is_there_twice_is_refused(tmp_path, header):
    (tmp_path / "train.csv").write_text(f"{header}\n" + ",".join("x" * len(header.split(","))) + "\n")
    with pytest.raises(UserError, match=r"train.csv' has more than one column \['label'\]; give every column its own"):
        list(read_csv(tmp_path / "train.csv", ("clip",)))


def test_half_a_character_in_json_is_refused_and_a_whole_one_is_text(tmp_path):
    path = tmp_path / "train.json"
    path.write_text(r'["\ud83d\ude00"]')
    assert read_json(path) == ["\U0001f600"]
    path.write_text(r'[{"id": "caf\udce9"}]')
    with pytest.raises(UserError, match=r"train.json' holds '.udce9', which is half a character"):
        read_json(path)
