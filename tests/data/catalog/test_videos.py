"""Files of videos: which a folder has, and which of them a name means."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cast_ray.data.catalog.videos import VIDEO_SUFFIXES, VideoFolder, below
from cast_ray.errors import UserError


@pytest.mark.parametrize("name", ["", ".", "..", "../a", "a/../../b", "/a", "a/.."])
def test_paths_that_lead_out_of_the_folder_are_refused(name):
    with pytest.raises(UserError, match="give a path below the video folder"):
        below(name, "file, line 1")


@pytest.mark.parametrize("name", ["/", "/a/../b", "/.."])
def test_an_absolute_path_may_be_one_but_does_not_lead_up(name):
    assert str(below("/a/b.mp4", "file, line 1", absolute=True)) == "/a/b.mp4"
    with pytest.raises(UserError, match="give a path below the video folder"):
        below(name, "file, line 1", absolute=True)


@given(st.lists(st.text("ab.-_ ", min_size=1).filter(lambda part: part not in (".", "..")), min_size=1, max_size=4))
def test_other_paths_stay_below(parts):
    path = os.path.join("/videos", below("/".join(parts), "x"))
    assert os.path.normpath(path).startswith("/videos/")


def touch(folder, *files: str) -> None:
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).touch()


@pytest.fixture
def folder(tmp_path):
    touch(tmp_path, "a.mp4", "train/b.webm", "train/b.mp4", "train/x/c.avi", "val/x/c.MKV", "val/y/d.mp4")
    touch(tmp_path, "1/2/3/deep.mp4", "notes.txt", ".a.mp4", ".trash/e.mp4")
    return tmp_path


def test_a_bare_name_is_found_in_any_subfolder_and_a_path_where_it_says(folder):
    videos = VideoFolder.scan(folder)
    assert videos.find("a") == str(folder / "a.mp4")
    assert videos.find("b") == str(folder / "train/b.mp4")
    assert videos.find("val/x/c") == str(folder / "val/x/c.MKV")
    assert videos.find("x/b", "nothing", "train/b", "a") == str(folder / "train/b.mp4")
    assert videos.find("notes") is None
    assert videos.find("deep") is None
    assert VideoFolder.scan(folder, depth=3).find("deep") == str(folder / "1/2/3/deep.mp4")


def test_the_end_of_a_path_is_enough_but_never_another_folder(folder):
    videos = VideoFolder.scan(folder)
    assert videos.find("y/d") == str(folder / "val/y/d.mp4")
    for other in ("x/d", "train/y/d", "l/y/d", "x/a"):
        assert videos.find(other) is None


def test_an_absolute_path_is_that_file_or_the_one_it_ends_in(folder, tmp_path_factory):
    videos = VideoFolder.scan(folder)
    assert videos.find(str(folder / "val/x/c")) == str(folder / "val/x/c.MKV")
    assert videos.find("/elsewhere/k400/val/x/c") == str(folder / "val/x/c.MKV")
    assert videos.find("/elsewhere/a") == str(folder / "a.mp4")
    for other in (folder / "x/c", "/elsewhere/x/c", "/elsewhere/y/d", folder / "val/y/a"):
        assert videos.find(str(other)) is None
    link = tmp_path_factory.mktemp("link") / "videos"
    link.symlink_to(folder)
    assert VideoFolder.scan(link).find(str(folder / "val/x/c")) == str(link / "val/x/c.MKV")


def test_a_name_that_several_files_have_is_refused(folder):
    touch(folder, "b.mp4")
    videos = VideoFolder.scan(folder)
    for name, files in {
        "c": "train/x/c.avi, val/x/c.MKV",
        "x/c": "train/x/c.avi, val/x/c.MKV",
        "/elsewhere/train/b": "b.mp4, train/b.mp4",
    }.items():
        with pytest.raises(UserError, match=f"more than one video '{name}': {files}; keep the right one"):
            videos.find(name)


def test_what_is_no_clip_is_known_with_its_reason(folder):
    touch(folder, "train/c.mp4/inner.mp4")
    (folder / "train/dead.mp4").symlink_to(folder / "nowhere.mp4")
    (folder / "train/link.mp4").symlink_to(folder / "a.mp4")
    with open(os.fsencode(folder) + b"/train/caf\xe9.mp4", "wb"):
        pass
    videos = VideoFolder.scan(folder)
    assert {what: paths for what, paths in videos.ignored.items() if paths} == {
        "files whose names do not end as those of videos": ["notes.txt"],
        "videos that differ from another one only by what follows the last dot": ["train/b.webm"],
        "entries that are no files, such as links that lead nowhere": ["train/dead.mp4"],
        "files whose names are not UTF-8 text": ["train/caf\\xe9.mp4"],
        "folders that lie deeper than videos are looked for": ["1/2/3"],
    }
    assert videos.find("train/c") is None
    assert videos.find("inner") == str(folder / "train/c.mp4/inner.mp4")
    assert videos.find("link") == str(folder / "train/link.mp4")
    assert sorted(videos.files) == [
        "a",
        "train/b",
        "train/c.mp4/inner",
        "train/link",
        "train/x/c",
        "val/x/c",
        "val/y/d",
    ]


@pytest.mark.parametrize("suffix", [".m4v", ".MPG", ".wmv", ".flv", ".3gp", ".ogv", ".ts", ".mpeg"])
def test_containers_that_ffmpeg_reads_are_videos(tmp_path, suffix):
    touch(tmp_path, f"a{suffix}")
    assert suffix.lower() in VIDEO_SUFFIXES
    assert VideoFolder.scan(tmp_path).find("a") == str(tmp_path / f"a{suffix}")


def test_a_video_folder_whose_path_is_no_text_is_refused_with_its_bytes(tmp_path):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
    os.mkdir(path)
    with pytest.raises(UserError, match=r"/caf.xe9' is not UTF-8 text; rename the folder"):
        VideoFolder.scan(path)
