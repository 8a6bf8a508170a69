from __future__ import annotations

import csv
import io
import json

import numpy as np
import pytest
import torch

from cast_ray.data.inputs import InputMaker
from cast_ray.evaluation.comparison import Resampling
from cast_ray.evaluation.predictions import Predictions
from cast_ray.explain.corruptions import CORRUPTIONS
from cast_ray.explain.curves import curves_table, files, mistakes_table, to_csv
from cast_ray.explain.model import centre_loader, model_here, open_network
from cast_ray.explain.robustness import CLEAN, Level, applicable, assess, predict_damaged
from cast_ray.labels import LabelMap

LABELS = LabelMap({"verb": ("left", "right"), "noun": ("key", "flag", "disc")})
RESAMPLING = Resampling(resamples=200)


def predictions(verbs, nouns, *, said_verbs, said_nouns):
    def certain(said, classes):
        return np.eye(classes, dtype=np.float32)[said]

    return Predictions(
        clip_ids=tuple(f"clip {number}" for number in range(len(verbs))),
        labels=np.stack([verbs, nouns], axis=1),
        probabilities={"verb": certain(said_verbs, 2), "noun": certain(said_nouns, 3)},
        num_views=np.ones(len(verbs), np.int32),
        label_map=LABELS,
        checkpoint="0123456789abcdef",
    )


@pytest.fixture
def model(make_run):
    return model_here(str(make_run("ca2st_tiny")), device="cpu")


@pytest.fixture
def reversal(model):
    """Undamaged, all is right; backwards, every verb is the other one, and half of the nouns are wrong."""
    verbs, nouns = np.tile([0, 1], 10), np.repeat([0, 2], 10)
    half = np.where(np.arange(20) % 2, nouns, 1)
    levels = {CLEAN: predictions(verbs, nouns, said_verbs=verbs, said_nouns=nouns)}
    for level in CORRUPTIONS["reverse"].levels:
        levels[Level("reverse", level)] = predictions(verbs, nouns, said_verbs=1 - verbs, said_nouns=half)
    return assess(model, levels, [CORRUPTIONS["reverse"]], resampling=RESAMPLING, notes=["a note"])


def test_accuracies_changes_and_mistakes_are_those_counted_by_hand(reversal):
    at = Level("reverse", 1.0)
    assert reversal.measured == ("verb", "noun", "action")
    assert [reversal.accuracy(name, CLEAN).value for name in reversal.measured] == [1, 1, 1]
    assert [reversal.accuracy(name, at).value for name in reversal.measured] == [0, 0.5, 0]
    assert reversal.change("verb", at).value == -1
    assert reversal.change("noun", at).value == -0.5
    assert reversal.change("noun", at).high < 0
    assert [reversal.chance(name) for name in reversal.measured] == pytest.approx([1 / 2, 1 / 3, 1 / 6])
    assert [(one.true, one.predicted, one.clips, one.of) for one in reversal.mistakes("verb", at)] == [
        ("left", "right", 10, 10),
        ("right", "left", 10, 10),
    ]


def test_files_hold_the_same_figures(reversal):
    found = files(reversal)
    assert set(found) == {"robustness.png", "robustness.svg", "robustness.csv", "robustness.json"}
    assert found["robustness.png"].startswith(b"\x89PNG")
    stored = json.loads(found["robustness.json"])
    (curve,) = stored["curves"]
    assert stored["clean"]["verb"]["value"] == 1
    assert [point["accuracy"]["noun"]["value"] for point in curve["points"]] == [0.5] * 4
    assert curve["mistakes_at_strongest"]["verb"][0] == {"true": "left", "predicted": "right", "clips": 10, "of": 10}
    rows = list(csv.DictReader(io.StringIO(to_csv(reversal))))
    assert len(rows) == 3 * (1 + 4)
    assert [row["accuracy"] for row in rows if row["of"] == "verb"] == ["1.0", "0.0", "0.0", "0.0", "0.0"]


def test_what_is_drawn_twice_is_the_same_file(reversal):
    assert files(reversal) == files(reversal)


def test_below_guessing_it_is_said_what_is_taken_for_what(reversal):
    table = mistakes_table(reversal)
    assert [list(column.cells) for column in table.columns][2:4] == [["left", "right"], ["right", "left"]]
    assert curves_table(reversal).row_count == 1 + 4 + 1


@pytest.fixture
def measured(data, model):
    rows = data.dataset.split("validation")

    def measured(names, *, clips_at_once, seed=0, progress=lambda done: None):
        return predict_damaged(
            model,
            centre_loader(model, data.dataset),
            rows,
            [CORRUPTIONS[name] for name in names],
            seed=seed,
            clips_at_once=clips_at_once,
            progress=progress,
        )

    return measured


def test_undamaged_predictions_are_those_of_the_network_on_the_validation_view(data, model, measured):
    found, unreadable = measured(["shuffle"], clips_at_once=5)
    opened = open_network(model)
    batch = centre_loader(model, data.dataset)(data.dataset.split("validation"))
    with torch.inference_mode():
        logits = opened.network(InputMaker(opened.network.spec, opened.device).evaluation(batch))
    assert unreadable == []
    assert found[CLEAN].clip_ids == tuple(batch["clip_id"])
    for field, scores in logits.items():
        np.testing.assert_allclose(found[CLEAN].probabilities[field], scores.softmax(-1), atol=1e-6)


def test_results_depend_on_the_seed_and_not_on_the_size_of_batches(measured):
    (first, _), (second, _), (other, _) = (
        measured(["shuffle", "noise"], clips_at_once=size, seed=seed) for size, seed in ((4, 0), (12, 0), (12, 1))
    )
    level = Level("shuffle", 1.0)
    for one in first:
        np.testing.assert_allclose(first[one].probabilities["verb"], second[one].probabilities["verb"], atol=1e-5)
    assert not np.allclose(first[level].probabilities["verb"], other[level].probabilities["verb"])
    assert not np.allclose(first[level].probabilities["verb"], first[CLEAN].probabilities["verb"])


def test_progress_ends_with_all_clips(measured):
    told = []
    measured(["reverse"], clips_at_once=5, progress=told.append)
    assert told == sorted(told)
    assert told[-1] == 12


def test_damage_to_sound_is_left_out_with_a_note_where_the_model_does_not_hear(make_run):
    model = model_here(str(make_run("cast_tiny")), device="cpu")
    corruptions, notes = applicable(model, ["blur", "noise", "mute"])
    assert [corruption.name for corruption in corruptions] == ["blur"]
    assert notes == [
        "noise is left out: cast_tiny takes no sound",
        "mute is left out: cast_tiny takes no sound",
    ]
