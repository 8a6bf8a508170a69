"""VGG-Sound: what is its own; see test_readers.py for the rest."""

from __future__ import annotations

import pytest

from cast_ray.data.catalog import read_vggsound
from cast_ray.data.manifest import TRAIN
from cast_ray.errors import UserError

ROWS = (
    "--CC5pH97q4,30,people marching,train\n--CC5pH97q4,40,people marching,train\n---g-f_I2yQ,1,people marching,test\n"
)


def read(folder, rows: str):
    (folder / "videos").mkdir()
    for name in ("--CC5pH97q4_000030", "--CC5pH97q4_000040", "---g-f_I2yQ_000001"):
        (folder / "videos" / f"{name}.mp4").touch()
    (folder / "vggsound.csv").write_text(rows)
    return read_vggsound(folder / "videos", folder)


def test_one_youtube_video_may_have_several_clips(tmp_path):
    clips = read(tmp_path, ROWS).split(TRAIN)
    assert [clip.clip_id for clip in clips] == ["--CC5pH97q4_000030", "--CC5pH97q4_000040"]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (",test", ",val", r"line 3: the split is 'val'; it must be 'train' or 'test'"),
        (",30,", ",half,", r"line 1: the first second is 'half'; it must be a whole number"),
        (
            ",train\n-",
            "\n-",
            r"line 1: the row does not have as many fields as there are columns \(youtube_id, start_s",
        ),
        (
            "ing,test",
            "ing band,test",
            r"line 3: label 'people marching band' of clip .* does not occur among the train",
        ),
    ],
)
def test_wrong_rows_are_located(tmp_path, old, new, said):
    with pytest.raises(UserError, match=f"vggsound.csv', {said}"):
        read(tmp_path, ROWS.replace(old, new, 1))
