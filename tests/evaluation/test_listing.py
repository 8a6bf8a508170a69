"""Which files a batch prediction means: folders, patterns, tables, on disk and S3."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cast_ray.data.storage import filesystem
from cast_ray.errors import UserError
from cast_ray.evaluation.kept_listing import kept_listing
from cast_ray.evaluation.listing import list_clips, matches

FILES = ("b.mp4", "a/one.MKV", "a/deep/two.mov", "a/notes.txt", ".hidden.mp4", ".cache/three.mp4", "a b #1.webm")
VIDEOS = ["a b #1.webm", "a/deep/two.mov", "a/one.MKV", "b.mp4"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in FILES:
        path = tmp_path / "videos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"video")
    return tmp_path / "videos"


def ids(listing) -> list[str]:
    return listing.clips["clip_id"].to_pylist()


def test_a_folder_means_its_videos_at_any_depth_in_a_fixed_order(folder):
    listing = list_clips(str(folder))
    assert ids(listing) == VIDEOS
    assert listing.clips["uri"].to_pylist() == [f"{folder}/{name}" for name in VIDEOS]
    assert dict(listing.left_out) == {"files whose names do not end as those of videos": 1}


def test_a_prefix_on_s3_is_listed_and_its_uris_open(s3_bucket):
    storage, bucket = filesystem(s3_bucket)
    for name in FILES:
        with storage.open_output_stream(f"{bucket}/videos/{name}") as sink:
            sink.write(b"video")
    listing = list_clips(f"{s3_bucket}/videos")
    assert ids(listing) == VIDEOS
    for uri in listing.clips["uri"].to_pylist():
        place, path = filesystem(uri)
        assert place.get_file_info(path).size == 5
    assert ids(list_clips(f"{s3_bucket}/videos/a/*")) == ["one.MKV"]
    with pytest.raises(UserError, match="does not exist"):
        list_clips(f"{s3_bucket}/elsewhere")


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.mp4", ["b.mp4"]),
        ("**/*.mov", ["a/deep/two.mov"]),
        ("**", VIDEOS),
        ("a/*", ["one.MKV"]),
        ("?.mp4", ["b.mp4"]),
        ("a/**/two.*", ["deep/two.mov"]),
        ("[ab].mp4", ["b.mp4"]),
    ],
)
def test_a_pattern_means_what_a_shell_means(folder, pattern, expected):
    assert ids(list_clips(f"{folder}/{pattern}")) == expected


names = st.text("ab.", min_size=1, max_size=3).filter(lambda name: not name.startswith("."))


@given(st.lists(names, min_size=1, max_size=3), st.lists(st.one_of(names, st.just("*"), st.just("**")), min_size=1))
def test_patterns_match_as_a_literal_search_does(path, pattern):
    def literal(path: list[str], pattern: list[str]) -> bool:
        if not pattern:
            return not path
        if pattern == ["**"]:
            return bool(path)
        if pattern[0] == "**":
            return any(literal(path[skip:], pattern[1:]) for skip in range(len(path) + 1))
        return bool(path) and pattern[0] in ("*", path[0]) and literal(path[1:], pattern[1:])

    assert matches("/".join(path), "/".join(pattern)) == literal(path, pattern)


def test_a_folder_whose_name_looks_like_a_pattern_is_a_folder(tmp_path):
    (tmp_path / "clips [2020]").mkdir()
    (tmp_path / "clips [2020]" / "a.mp4").touch()
    assert ids(list_clips(str(tmp_path / "clips [2020]"))) == ["a.mp4"]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_table_names_files_and_parts_of_them(folder, kind):
    table = folder / f"clips.{kind}"
    if kind == "csv":
        table.write_text("path,start_s,stop_s\nb.mp4,,\na/one.MKV,1.5,3\na/one.MKV,3,\ns3://bucket/c.mp4,,2\n")
    else:
        columns = {
            "path": ["b.mp4", "a/one.MKV", "a/one.MKV", "s3://bucket/c.mp4"],
            "start_s": [None, 1.5, 3.0, None],
            "stop_s": [None, 3.0, None, 2.0],
        }
        pq.write_table(pa.table(columns), table)
    listing = list_clips(str(table))
    assert ids(listing) == ["b.mp4", "a/one.MKV#t=1.5,3", "a/one.MKV#t=3,", "s3://bucket/c.mp4#t=0,2"]
    assert listing.clips["uri"].to_pylist() == [
        f"{folder}/b.mp4",
        *[f"{folder}/a/one.MKV"] * 2,
        "s3://bucket/c.mp4",
    ]
    assert listing.clips["start_s"].to_pylist() == [None, 1.5, 3.0, None]
    assert listing.clips["stop_s"].to_pylist() == [None, 3.0, None, 2.0]


def test_a_table_may_name_its_clips(folder):
    (folder / "clips.csv").write_text("clip_id,path\n007,b.mp4\n008,b.mp4\n")
    assert ids(list_clips(str(folder / "clips.csv"))) == ["007", "008"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("file\na.mp4\n", r"has the columns \['file'\], but no 'path'"),
        ("path\n", "has no rows"),
        ("path,start_s\na.mp4,soon\n", "column 'start_s' of .* has no seconds"),
        ("path,start_s,stop_s\na.mp4,4,3\n", "begins at 4.0 s and ends at 3.0 s"),
        ("path,start_s\na.mp4,-0.5\n", "begins at -0.5 s and ends at None s; give a start_s from 0 on"),
        ("path\na.mp4\nb.mp4\na.mp4\n", r"1 clips come more than once in .* \['a.mp4'\]"),
        ("path,clip_id\n,x\na.mp4,y\n", "has 1 rows without a path, the first is row 1"),
        ("path,start_s\na.mp4\n", "cannot be read as a table"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_with_the_reason(tmp_path, text, said):
    (tmp_path / "clips.csv").write_text(text)
    with pytest.raises(UserError, match=said):
        list_clips(str(tmp_path / "clips.csv"))


@pytest.mark.parametrize("name", ["start_s", "stop_s"])
def test_seconds_that_are_no_number_are_refused(folder, name):
    seconds = {"start_s": [None, 0.0], "stop_s": [None, 2.0], name: [None, float("nan")]}
    pq.write_table(pa.table({"path": ["a/one.MKV", "b.mp4"], **seconds}), folder / "clips.parquet")
    with pytest.raises(UserError, match=r"the clip of b\.mp4 begins at .*nan s"):
        list_clips(str(folder / "clips.parquet"))


def test_clips_that_begin_at_almost_the_same_time_have_different_names(folder):
    (folder / "clips.csv").write_text("path,start_s,stop_s\nb.mp4,12345.61,12350\nb.mp4,12345.62,12350\n")
    assert ids(list_clips(str(folder / "clips.csv"))) == ["b.mp4#t=12345.61,12350", "b.mp4#t=12345.62,12350"]


def test_what_is_not_there_or_has_no_videos_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    for source, said in (("nowhere", "does not exist"), ("empty", "has no videos"), ("*.mp4", "that match")):
        with pytest.raises(UserError, match=said):
            list_clips(str(tmp_path / source))


def test_a_job_keeps_to_the_files_that_it_began_with(folder, tmp_path):
    """Files that come later would move others into another part, and be predicted twice or never."""
    output = str(tmp_path / "out")
    assert ids(kept_listing(str(folder), output)) == VIDEOS
    (folder / "0.mp4").touch()
    again = kept_listing(str(folder), output)
    assert (ids(again), again.root) == (VIDEOS, str(folder))
    assert "0.mp4" in ids(kept_listing(str(folder), str(tmp_path / "other")))
    with pytest.raises(UserError, match="holds predictions of"):
        kept_listing(str(folder / "a"), output)


def test_what_a_kill_left_does_not_keep_a_job_from_keeping_its_list(folder, tmp_path):
    output = tmp_path / "out"
    output.mkdir()
    for name in ("_input.parquet.0123.part", ".probe-0123"):
        (output / name).write_bytes(b"half")
    assert ids(kept_listing(str(folder), str(output))) == VIDEOS
    (folder / "0.mp4").touch()
    assert ids(kept_listing(str(folder), str(output))) == VIDEOS
