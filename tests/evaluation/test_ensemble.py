"""The ensemble of finished runs: averages by hand, clips in any order, and what may not be joined."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from cast_ray.errors import UserError
from cast_ray.evaluation.ensemble import combine, parse_take, run
from cast_ray.evaluation.metrics import evaluate
from cast_ray.evaluation.predictions import Predictions, read_predictions, write_predictions
from cast_ray.labels import LabelMap

NAMES = {"verb": ("push", "pull"), "noun": ("cup", "box", "pen")}


def _predictions(verb, noun, *, clip_ids=("a", "b"), labels=((0, 2), (1, 1)), views=2, checkpoint="one", names=None):
    return Predictions(
        clip_ids=clip_ids,
        labels=np.array(labels, np.int64),
        probabilities={"verb": np.array(verb, np.float32), "noun": np.array(noun, np.float32)},
        num_views=np.full(len(clip_ids), views, np.int32),
        label_map=LabelMap(NAMES if names is None else names),
        checkpoint=checkpoint,
    )


@pytest.fixture
def spatial():
    """Knows both nouns, and takes both verbs for the other."""
    return _predictions([[0.4, 0.6], [0.7, 0.3]], [[0.1, 0.2, 0.7], [0.2, 0.5, 0.3]])


@pytest.fixture
def temporal():
    """Knows both verbs, and only the second noun; its clips come in another order."""
    return _predictions(
        [[0.1, 0.9], [0.8, 0.2]],
        [[0.1, 0.8, 0.1], [0.7, 0.1, 0.2]],
        clip_ids=("b", "a"),
        labels=((1, 1), (0, 2)),
        views=6,
        checkpoint="two",
    )


def test_probabilities_are_averaged_clip_by_clip(spatial, temporal):
    joint = combine({"s": spatial, "t": temporal})
    assert joint.clip_ids == ("a", "b")
    np.testing.assert_allclose(joint.probabilities["verb"], [[0.6, 0.4], [0.4, 0.6]], atol=1e-7)
    np.testing.assert_allclose(joint.probabilities["noun"], [[0.4, 0.15, 0.45], [0.15, 0.65, 0.2]], atol=1e-7)
    assert joint.labels.tolist() == [[0, 2], [1, 1]]
    assert joint.num_views.tolist() == [8, 8]
    assert joint.checkpoint == "one+two"


def test_two_runs_that_know_different_things_know_both_together(spatial, temporal):
    figures = [evaluate(x).summary() for x in (spatial, temporal, combine({"s": spatial, "t": temporal}))]
    assert [x["verb_top1"] for x in figures] == [0.0, 1.0, 1.0]
    assert [x["noun_top1"] for x in figures] == [1.0, 0.5, 1.0]
    assert [x["action_top1"] for x in figures] == [0.0, 0.5, 1.0]


def test_a_field_can_come_from_one_run_alone(spatial, temporal):
    joint = combine({"s": spatial, "t": temporal}, {"noun": 0})
    np.testing.assert_allclose(joint.probabilities["verb"], [[0.6, 0.4], [0.4, 0.6]], atol=1e-7)
    np.testing.assert_array_equal(joint.probabilities["noun"], spatial.probabilities["noun"])


def test_runs_that_no_field_is_taken_from_do_not_count(spatial, temporal):
    joint = combine({"s": spatial, "t": temporal, "other": replace(spatial, checkpoint="3")}, {"noun": 0, "verb": 1})
    np.testing.assert_allclose(joint.probabilities["verb"], [[0.8, 0.2], [0.1, 0.9]], atol=1e-7)
    assert joint.num_views.tolist() == [8, 8]
    assert joint.checkpoint == "one+two"


def test_three_runs_weigh_the_same(make_predictions, verb_noun_names):
    runs = {str(seed): make_predictions(verb_noun_names, clips=1, seed=seed) for seed in range(3)}
    same_truth = {name: replace(x, labels=runs["0"].labels) for name, x in runs.items()}
    joint = combine(same_truth).probabilities["verb"]
    for column in range(8):
        by_hand = sum(float(x.probabilities["verb"][0, column]) for x in runs.values()) / 3
        assert joint[0, column] == pytest.approx(by_hand, abs=1e-7)
    assert joint.sum() == pytest.approx(1, abs=1e-6)


def test_clips_that_one_run_lacks_are_named(spatial):
    other = _predictions([[0.5, 0.5]] * 2, [[0.2, 0.3, 0.5]] * 2, clip_ids=("a", "c"))
    with pytest.raises(UserError, match=r"'t' lacks 1 clips of 's' \['b'\] and has 1 others \['c'\]; evaluate both"):
        combine({"s": spatial, "t": other})


def test_other_true_labels_are_named(spatial, temporal):
    wrong = replace(temporal, labels=np.array([[1, 1], [0, 0]]))
    with pytest.raises(UserError, match=r"'a' \(\[0, 0\] and \[0, 2\]\)"):
        combine({"s": spatial, "t": wrong})


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            {"verb": ("pull", "push"), "noun": NAMES["noun"]},
            "2 verb classes are in another order, such as 0: 'pull' and 'push'",
        ),
        (
            {"verb": NAMES["verb"], "noun": ("cup", "box", "pen", "hat")},
            r"4 and 3 noun classes; only one has noun \['hat'\]",
        ),
    ],
)
def test_other_label_maps_are_refused(spatial, names, message):
    noun = np.full((2, len(names["noun"])), 1 / len(names["noun"]))
    with pytest.raises(UserError, match=message):
        combine({"s": spatial, "t": _predictions([[0.5, 0.5]] * 2, noun, names=names)})


@pytest.mark.parametrize(
    ("take", "message"), [({"action": 0}, "'action'; the runs have"), ({"noun": 2}, "runs 0 to 1")]
)
def test_fields_and_runs_that_do_not_exist_are_refused(spatial, temporal, take, message):
    with pytest.raises(UserError, match=message):
        combine({"s": spatial, "t": temporal}, take)


def test_one_run_is_no_ensemble(spatial):
    with pytest.raises(UserError, match="two runs or more"):
        combine({"s": spatial})


def test_choices_are_read():
    assert parse_take(["noun=0", "verb=12"]) == {"noun": 0, "verb": 12}


@pytest.mark.parametrize("choices", [["noun"], ["=1"], ["noun=first"], ["noun=-1"], ["noun=0", "noun=1"]])
def test_malformed_choices_are_refused(choices):
    with pytest.raises(UserError, match="--take has"):
        parse_take(choices)


def test_the_command_reads_run_folders_shows_all_figures_and_writes(tmp_path, monkeypatch, spatial, temporal):
    monkeypatch.chdir(tmp_path)
    write_predictions(Path("spatial/predictions.parquet"), spatial)
    # Something else that a run's folder may hold is not taken for predictions.
    write_predictions(Path("spatial/epochs/old.parquet"), replace(spatial, checkpoint="older"))
    write_predictions(Path("temporal.parquet"), temporal)
    console = Console(width=160, file=io.StringIO())
    paths = (Path("spatial"), Path("temporal.parquet"))
    assert run(paths, take=["noun=0", "verb=1"], output=Path("joint.parquet"), console=console) == 0
    lines = console.file.getvalue().splitlines()
    figures = {
        name: next(line.split()[-2] for line in lines if name in line) for name in ("spatial", "tem", "ensemble")
    }
    # The last column is that of the action's top-5, the one before it top-1.
    assert figures == {"spatial": "0.0%", "tem": "50.0%", "ensemble": "100.0%"}
    assert any("ensemble (noun from 0, verb from 1)" in line for line in lines)
    assert read_predictions(Path("joint.parquet")).checkpoint == "one+two"


def test_the_same_run_twice_is_refused(tmp_path, spatial):
    path = write_predictions(tmp_path / "predictions.parquet", spatial)
    with pytest.raises(UserError, match="given twice"):
        run((path, path), take=(), output=None, console=Console(quiet=True))
