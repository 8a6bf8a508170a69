"""ActivityNet: what is its own; see test_readers.py for the rest."""

from __future__ import annotations

import json

import pytest

from cast_ray.data.catalog import read_activitynet
from cast_ray.errors import UserError

RUN, SWIM = ({"label": label, "segment": [1.0, 5.5]} for label in ("Running a marathon", "Swimming"))
NAME = "activity_net.v1-3.min.json"


def video(subset: str, *annotations) -> dict:
    return {"subset": subset, "duration": 9.5, "annotations": list(annotations)}


def read(folder, content, **settings):
    (folder / "videos").mkdir()
    for name in ("v_a", "b", "v_c"):
        (folder / "videos" / f"{name}.mp4").touch()
    (folder / NAME).write_text(json.dumps(content))
    return read_activitynet(folder / "videos", folder, **settings)


def test_empty_segments_of_the_official_file_can_be_left_out_and_keep_their_number(tmp_path):
    """It has {'segment': [0, 0], 'label': 'Washing hands'}, for example."""
    empty = {"label": "Swimming", "segment": [0, 0]}
    database = {"a": video("training", RUN, empty, SWIM), "b": video("validation", SWIM)}
    reports = []
    manifest = read(tmp_path, {"database": database}, on_skip=reports.append)
    assert [clip.clip_id for clip in manifest.clips] == ["a_1", "a_3", "b_1"]
    assert len(reports) == 1
    assert "1 clips of 3 with a segment that does not end after it begins: a_2 (segment 2 of video 'a');" in reports[0]


@pytest.mark.parametrize("content", [[], {}, {"database": []}, "text"])
def test_files_of_another_form_are_refused(tmp_path, content):
    with pytest.raises(UserError, match="must be a JSON object with an object 'database'"):
        read(tmp_path, content)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (5, r"video 'a': must be an object with 'subset'"),
        ({"subset": "train", "annotations": []}, r"video 'a': must be an object with 'subset' \(one of \['training'"),
        ({"subset": "training"}, r"video 'a': must be an object with 'subset'"),
        (video("training") | {"annotations": {}}, r"video 'a': 'annotations' must be a list"),
        (video("training", RUN, "x"), r"segment 2 of video 'a': must be an object with 'label' and 'segment'"),
        (video("training", {"label": 3, "segment": [0, 1]}), r"segment 1 of video 'a': must be an object with 'label'"),
        (video("training", {"label": "Swimming"}), r"segment 1 of video 'a': must be an object with 'label'"),
        (video("training", RUN | {"segment": [1]}), r"segment 1 of video 'a': 'segment' is \[1\]; it must be"),
        (video("training", RUN | {"segment": [-1, 2]}), r"'segment' is \[-1, 2\]; it must be the first and the last"),
        (video("training", RUN | {"segment": [1, None]}), r"'segment' is \[1, None\]"),
        (video("training", RUN | {"segment": [1, float("nan")]}), r"'segment' is \[1, nan\]"),
    ],
)
def test_wrong_videos_and_segments_are_located(tmp_path, wrong, said):
    with pytest.raises(UserError, match=f"{NAME}', .*{said}|{NAME}', {said}"):
        read(tmp_path, {"database": {"a": wrong, "b": video("validation", RUN)}})
