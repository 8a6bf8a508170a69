"""`cast-ray report` from the words behind it to the files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cast_ray.data.manifest import TRAIN, VALIDATION, Clip, Manifest
from cast_ray.errors import UserError
from cast_ray.evaluation.predictions import write_predictions
from cast_ray.labels import LabelMap
from cast_ray.report.command import main
from cast_ray.report.keep import write_kept

CLIPS = Path(__file__).parents[1] / "clips"


@pytest.fixture
def folders(three_runs, tmp_path) -> list[str]:
    """The runs as they lie on a disk."""
    for run in three_runs:
        folder = tmp_path / run.name
        folder.mkdir()
        write_predictions(folder / "predictions.parquet", run.predictions)
        (folder / "config.json").write_text(json.dumps(run.config))
        write_kept(run, folder)
    return [str(tmp_path / run.name) for run in three_runs]


def test_runs_become_a_page_and_pictures(folders, tmp_path, capsys):
    groups = tmp_path / "groups.json"
    groups.write_text(json.dumps({f"noun {index}": "even" if index % 2 == 0 else "odd" for index in range(6)}))
    output, pictures = tmp_path / "out.html", tmp_path / "pictures"
    flags = ["--output", str(output), "--groups", str(groups), "--clips", "5", "--resamples", "20"]
    assert main([*folders[1:], *flags, "--names", "VideoMAE", "CAST (ours)", "--pictures", str(pictures)]) == 0
    page = output.read_text()
    assert "CAST (ours) over VideoMAE" in page
    assert page.count("<article") == 5, "the clips that the run kept"
    names = {file.stem for file in pictures.iterdir()}
    assert {"headline", "gain-noun-B-over-A", "group-noun-B-over-A", "confusion-verb-A", "f1-verb"} <= names
    assert f"report: {output}" in capsys.readouterr().err


def test_clips_are_read_from_the_dataset_where_it_is(make_runs, sharded, tmp_path, capsys):
    label_map = LabelMap({"label": ("one", "two")})
    clips = [
        Clip(clip_id=f"clip-{index}", uri=str(CLIPS / name), labels=(index % 2,), split=split)
        for index, (name, split) in enumerate(
            [("unordered_timestamps.mov", VALIDATION), ("rotated_90.mov", VALIDATION), ("rotated_90.mov", TRAIN)]
        )
    ]
    sharded(Manifest(clips=tuple(clips), label_map=label_map), tmp_path / "shards")
    for number, run in enumerate(make_runs(dict(label_map.names), clips=3, skills=(1.0, 3.0))):
        write_predictions(tmp_path / f"{number}.parquet", run)
    runs, output = [str(tmp_path / f"{number}.parquet") for number in range(2)], tmp_path / "out.html"
    assert main([*runs, "--output", str(output), "--data", str(tmp_path / "shards")]) == 0
    assert output.read_text().count('poster="data:image/jpeg') == 3


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "no run is given"),
        (["RUN", "RUN"], "is given twice"),
        (["RUN", "--names", "a", "b"], "2 names for 1 runs"),
        (["RUN", "--clips", "-1"], "--clips is -1"),
        (["RUN", "--pictures", "s3://bucket/p"], "--pictures is 's3://bucket/p'; give a folder of this machine"),
        (["RUN", "--recipe", "ssv3"], "no recipe 'ssv3'"),
        (["RUN", "--levle", "1"], "unknown flag --levle; did you mean --level"),
        (["RUN", "--data", "/nowhere"], "no complete prepared dataset at '/nowhere'"),
        (["/nowhere"], "/nowhere"),
    ],
)
def test_mistakes_are_named(folders, tmp_path, monkeypatch, flags, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        main([folders[0] if flag == "RUN" else flag for flag in flags])
    assert not (tmp_path / "report.html").exists()
