"""`cast-ray metrics`: what it prints and writes, and how it answers mistakes."""

from __future__ import annotations

import dataclasses
import json
import math
import zipfile

import numpy as np
import pytest

from cast_ray.data.manifest import Clip, Manifest
from cast_ray.data.media import Facts, Media, MediaFormat, StoredClip
from cast_ray.data.shards import write_index, write_shard
from cast_ray.errors import UserError
from cast_ray.evaluation.metrics import evaluate
from cast_ray.evaluation.metrics_command import main
from cast_ray.evaluation.predictions import write_predictions
from cast_ray.labels import LabelMap

EK100 = {"verb": tuple(f"v{index}" for index in range(97)), "noun": tuple(f"n{index}" for index in range(300))}


@pytest.fixture
def printed(capsys, monkeypatch):
    """What the command prints on stdout, in a pipe."""

    def printed(*arguments: object) -> str:
        monkeypatch.setenv("COLUMNS", "60")
        assert main([*map(str, arguments), "--resamples", "100"]) == 0
        return capsys.readouterr().out

    return printed


@pytest.fixture
def annotations(tmp_path):
    folder = tmp_path / "annotations"
    folder.mkdir()
    (folder / "EPIC_100_unseen_participant_ids_validation.csv").write_text("participant_id\nP18\n")
    (folder / "EPIC_100_tail_verbs.csv").write_text("verb\n90\n96\n")
    (folder / "EPIC_100_tail_nouns.csv").write_text("noun\n200\n")
    return folder


@pytest.fixture
def runs(tmp_path, make_predictions):
    """Two runs on the same kitchens."""
    paths = []
    for name, skill in (("first", 2), ("[better]", 4)):
        predictions = make_predictions(EK100, clips=150, skill=skill)
        ids = tuple(f"P{17 + row % 2}_01_{row}" for row in range(150))
        path = tmp_path / name / "predictions.parquet"
        write_predictions(path, dataclasses.replace(predictions, clip_ids=ids, checkpoint=name))
        paths.append(path.parent)
    return paths


def test_the_table_says_what_the_json_says(printed, runs, annotations):
    text = printed(*runs, "--ek100-annotations", annotations)
    data = json.loads(printed(*runs, "--ek100-annotations", annotations, "--json"))
    assert f"1  {runs[0]}  (150 clips)" in text
    assert f"2  {runs[1]}  (150 clips)" in text
    rows = {line[:28].strip(): line[28:] for line in text.splitlines()}
    first, better = (data["runs"][str(path)] for path in runs)
    assert set(first["figures"]) >= {
        "verb_top1",
        "action_top5",
        "unseen_noun_top1",
        "tail_action_top1",
        "harmonic_mean",
    }
    for name in ("verb_top1", "action_top5", "unseen_action_top1", "tail_verb_top1"):
        cells = rows[name.replace("_", " ").replace("top", "top-")].split()
        one, other, difference = first["figures"][name], better["figures"][name], better["difference_to_first"][name]
        expected = [
            f"{100 * part[key]:{sign}.1f}"
            for part, sign in ((one, ""), (other, ""), (difference, "+"))
            for key in ("value", "low", "high")
        ]
        assert [cell for cell in cells if cell not in ("to", "*")] == expected
        assert ("*" in cells) == (difference["low"] > 0 or difference["high"] < 0)
    assert "of 100 bootstrap resamples" in text
    assert (data["resamples"], data["confidence_level"], data["seed"]) == (100, 0.95, 0)
    assert first["difference_to_first"] == {}
    assert better["checkpoint"] == "[better]"


def test_json_has_the_figures_of_every_class(printed, tmp_path, make_predictions):
    predictions = make_predictions({"label": ("left", "right", "none")}, clips=40)
    path = write_predictions(tmp_path / "p.parquet", predictions)
    (run,) = json.loads(printed(path, "--json"))["runs"].values()
    expected = evaluate(predictions).fields["label"]
    assert [one["name"] for one in run["classes"]["label"]] == ["left", "right", "none"]
    for key in ("support", "precision", "recall", "f1"):
        np.testing.assert_allclose([one[key] for one in run["classes"]["label"]], getattr(expected.per_class, key))
    assert run["calibration_error"] == {"label": pytest.approx(expected.calibration_error)}


def test_what_cannot_be_computed_is_null_or_said(printed, runs, annotations):
    (annotations / "EPIC_100_unseen_participant_ids_validation.csv").write_text("participant_id\nP40\n")
    text = printed(runs[0], "--ek100-annotations", annotations)
    data = printed(runs[0], "--ek100-annotations", annotations, "--json")
    assert next(line for line in text.splitlines() if "unseen verb" in line).split()[-2:] == ["no", "clips"]
    parsed = json.loads(data, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    figures = parsed["runs"][str(runs[0])]["figures"]
    assert figures["unseen_verb_top1"] == {"value": None, "low": None, "high": None}


def test_one_model_on_several_datasets(printed, tmp_path, runs, make_predictions):
    other = write_predictions(tmp_path / "k.parquet", make_predictions({"label": tuple("abcdef")}, clips=80))
    data = json.loads(printed(runs[0], other, "--across-datasets", "--json"))
    tops = [
        data["runs"][str(path)]["figures"][name]["value"]
        for path, name in ((runs[0], "verb_top1"), (runs[0], "noun_top1"), (other, "label_top1"))
    ]
    assert data["harmonic_mean"]["value"] == pytest.approx(3 / math.fsum(1 / top for top in tops))
    text = printed(runs[0], other, "--across-datasets")
    (row,) = (line.split() for line in text.splitlines() if "harmonic mean over all" in line)
    assert row[4] == f"{100 * data['harmonic_mean']['value']:.1f}"
    assert "2 - 1" not in text
    with pytest.raises(UserError, match="different label maps"):
        main([str(runs[0]), str(other)])


@pytest.fixture
def train_data(tmp_path):
    """Class n has 20 n training clips, and one more that is quarantined."""
    names = LabelMap({"label": ("none", "few", "some")})
    facts = Facts(num_frames=50, fps=25.0, width=32, height=24, video_codec="h264", sound_codec="", source="h264 32x24")
    clips = [
        StoredClip(
            clip=Clip(clip_id=f"{label}-{copy}", uri="v.mp4", labels=(label,), split="train"),
            media=Media(video=b"x"),
            facts=facts if copy else None,
            reason="" if copy else "no frame",
        )
        for label in range(3)
        for copy in range(20 * label + 1)
    ]
    shard = write_shard(str(tmp_path / "data"), "train/shard-00000.parquet", clips)
    manifest = Manifest(clips=tuple(one.clip for one in clips), label_map=names)
    write_index(str(tmp_path / "data"), manifest, MediaFormat(), [shard], digest="0123456789abcdef")
    return tmp_path / "data"


def test_accuracy_by_number_of_training_clips(printed, tmp_path, train_data, make_predictions):
    predictions = make_predictions({"label": ("none", "few", "some")}, clips=60)
    path = write_predictions(tmp_path / "p.parquet", predictions)
    (run,) = json.loads(printed(path, "--train-data", train_data, "--json"))["runs"].values()
    bins = run["by_training_clips"]["label"]
    assert [(one["low"], one["high"], one["classes"]) for one in bins] == [(0, 0, 1), (10, 29, 1), (30, 99, 1)]
    assert [one["clips"] for one in bins] == np.bincount(predictions.true("label")).tolist()
    text = printed(path, "--train-data", train_data)
    rows = [line.split() for line in text.splitlines() if line.split()[:1] in (["0"], ["10"], ["30"])]
    assert [row[-1] for row in rows] == [f"{100 * one['accuracy']:.1f}" for one in bins]
    other = write_predictions(tmp_path / "o.parquet", make_predictions({"label": ("none", "few", "many")}, clips=3))
    with pytest.raises(
        UserError, match=r"only one has label \['some'\].*; give the dataset that the run was trained on"
    ):
        main([str(other), "--train-data", str(train_data)])


def test_a_submission_is_written_and_needs_no_truth(printed, tmp_path, make_predictions):
    predictions = make_predictions(EK100, clips=4)
    path = write_predictions(tmp_path / "t.parquet", dataclasses.replace(predictions, labels=np.full((4, 2), -1)))
    assert printed(path, "--submission", tmp_path / "out.zip", "--sls", 5, 3, 4) == ""
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        assert json.loads(archive.read("test.json"))["sls_td"] == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "no predictions are given"),
        (("nowhere",), "predictions 'nowhere' do not exist"),
        (("FIRST", "FIRST"), "is given twice"),
        (("FIRST", "--submission", "a.zip"), "--submission and --sls belong together"),
        (("FIRST", "--sls", "1", "2", "3"), "--submission and --sls belong together"),
        (("FIRST", "--submission", "a.tar", "--sls", "1", "2", "3"), "ends in .zip or .json"),
        (
            ("FIRST", "SECOND", "--submission", "a.zip", "--sls", "1", "2", "3"),
            "a submission is of one run, 2 are given",
        ),
        (("FIRST", "--resamples", "0"), "give 1 or more"),
        (("FIRST", "--ek100-annotations", "nowhere"), "annotation folder 'nowhere' does not exist"),
        (("FIRST", "--across-datasets", "--train-data", "x"), "--train-data is for one dataset"),
        (("FIRST", "--train-data", "nowhere"), "no complete prepared dataset at 'nowhere'"),
        (("FIRST", "--top5"), "unknown flag --top5"),
    ],
)
def test_mistakes_are_answered_and_nothing_is_written(tmp_path, monkeypatch, runs, arguments, message):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    places = {"FIRST": str(runs[0]), "SECOND": str(runs[1])}
    with pytest.raises(UserError) as caught:
        main([places.get(argument, argument) for argument in arguments])
    assert message in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before
