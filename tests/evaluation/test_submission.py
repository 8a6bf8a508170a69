"""The challenge's file: its format, and that the challenge computes from it what we report."""

from __future__ import annotations

import dataclasses
import json
import zipfile

import numpy as np
import pytest
from scipy.special import softmax

from cast_ray.errors import UserError
from cast_ray.evaluation.actions import action_hits
from cast_ray.evaluation.submission import SupervisionLevels, submission, write_submission

EK100 = {"verb": tuple(f"v{index}" for index in range(97)), "noun": tuple(f"n{index}" for index in range(300))}
LEVELS = SupervisionLevels(pretraining=5, training_labels=3, training_data=4)


@pytest.fixture(scope="module")
def predictions(make_predictions):
    found = make_predictions(EK100, clips=40, skill=3)
    found.probabilities["verb"][0] = np.eye(97)[5]  # zeros, whose logarithm JSON cannot hold
    return dataclasses.replace(found, labels=np.full((40, 2), -1))


def test_it_has_the_official_layout(predictions):
    sent = json.loads(json.dumps(submission(predictions, LEVELS), allow_nan=False))
    results = sent.pop("results")
    assert sent == {"version": "0.2", "challenge": "action_recognition", "sls_pt": 5, "sls_tl": 3, "sls_td": 4}
    assert list(results) == list(predictions.clip_ids)
    for one in results.values():
        assert list(one["verb"]) == [str(index) for index in range(97)]
        assert list(one["noun"]) == [str(index) for index in range(300)]
        assert len(one["action"]) == 100
        verbs, nouns = zip(*(map(int, key.split(",")) for key in one["action"]), strict=True)
        assert max(verbs) < 97
        assert max(nouns) < 300


def test_the_challenges_softmax_gives_our_probabilities_and_actions_back(predictions):
    for row, one in enumerate(submission(predictions, LEVELS)["results"].values()):
        verb, noun = (softmax(list(one[field].values())) for field in EK100)
        np.testing.assert_allclose(verb, predictions.probabilities["verb"][row], atol=1e-6)
        np.testing.assert_allclose(noun, predictions.probabilities["noun"][row], atol=1e-6)
        products = np.outer(verb, noun).ravel()
        best = np.argsort(-products, kind="stable")[:100]
        assert list(one["action"].values()) == pytest.approx(products[best], rel=1e-4, abs=1e-9)
        if row:  # the first has ties
            assert set(one["action"]) == {f"{index // 300},{index % 300}" for index in best}


def test_the_first_and_the_first_five_actions_score_as_we_report(make_predictions):
    known = make_predictions(EK100, clips=60, skill=3)
    results = submission(known, LEVELS)["results"]
    for k, hits in action_hits(known, (1, 5)).items():
        sent = [
            f"{verb},{noun}" in list(one["action"])[:k]
            for one, (verb, noun) in zip(results.values(), known.labels.tolist(), strict=True)
        ]
        assert sent == hits.tolist()


def test_it_is_written_as_the_challenges_archive_or_as_json(predictions, tmp_path):
    write_submission(tmp_path / "out" / "test.zip", predictions, LEVELS)
    write_submission(str(tmp_path / "plain.json"), predictions, LEVELS)
    with zipfile.ZipFile(tmp_path / "out" / "test.zip") as archive:
        assert archive.namelist() == ["test.json"]
        zipped = archive.read("test.json")
    assert zipped == (tmp_path / "plain.json").read_bytes()
    assert json.loads(zipped) == submission(predictions, LEVELS)


def test_other_datasets_names_and_levels_are_refused(predictions, make_predictions, tmp_path):
    with pytest.raises(UserError, match=r"{'label': 3} classes, a submission to EPIC-KITCHENS-100 needs {'verb': 97"):
        submission(make_predictions({"label": tuple("abc")}, clips=2), LEVELS)
    with pytest.raises(UserError, match=r"test\.txt'; give a name that ends in \.zip or \.json"):
        write_submission(tmp_path / "test.txt", predictions, LEVELS)
    with pytest.raises(UserError, match="a supervision level is 6"):
        SupervisionLevels(pretraining=2, training_labels=6, training_data=3)
    assert list(tmp_path.iterdir()) == []
