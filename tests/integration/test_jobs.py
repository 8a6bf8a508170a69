"""The jobs as a user runs them: submitted to a cluster, followed, and their results opened."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cast_ray.config import RunConfig
from cast_ray.data.synthetic import SyntheticDataset, write_dataset
from cast_ray.errors import UserError
from cast_ray.evaluation.predictions import read_predictions
from cast_ray.training.build import build_network
from cast_ray.training.checkpoint import load_weights, read_history, read_state

Submit = Callable[..., tuple[int, str]]
TRAIN_CLIPS, VALIDATION_CLIPS = 96, 33


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> SyntheticDataset:
    """SSV2's layout; one training clip and one validation clip cannot be read."""
    folder = tmp_path_factory.mktemp("ssv2") / "clips"
    clips = write_dataset(folder, layout="ssv2", train_clips=TRAIN_CLIPS, validation_clips=VALIDATION_CLIPS)
    corrupted = Path(__file__).parents[1] / "clips" / "corrupted.mp4"
    for clip_id in ("5", "1000003"):
        shutil.copy(corrupted, clips.videos / f"{clip_id}.mp4")
    return clips


@pytest.fixture(scope="module")
def submitted(submit: Submit, clips: SyntheticDataset, tmp_path_factory) -> tuple:
    storage = tmp_path_factory.mktemp("storage")
    flags = ["--small", "--data", str(clips.videos), "--annotations", str(clips.annotations)]
    # A URI, as on a cluster; every other test has plain folders.
    flags += [
        "--storage",
        f"file://{storage}",
        "--name",
        "first",
        "--optim.epochs",
        "2",
        "--data.max-unreadable",
        "0.05",
    ]
    status, output = submit(*flags)
    return storage / "first", flags, status, output


def test_the_submitted_job_succeeds_and_shows_its_progress(submitted: tuple) -> None:
    _, _, status, output = submitted
    assert status == 0, output
    assert "succeeded" in output
    progress = r"step +\d+ +loss \d\.\d+ +[\d.]+ clips/s +wait +\d+% +left \d+:\d\d"
    assert re.search(progress, output), output
    assert "validation" in output


def test_its_checkpoint_opens_as_the_model_it_names(submitted: tuple) -> None:
    folder = max(submitted[0].glob("checkpoint_2*"))
    state = read_state(folder)
    assert state.position.epoch == 2
    config = RunConfig.from_dict(state.config)
    network, frozen = build_network(config.model, config.weights, state.label_map, seed=config.seed)
    load_weights(folder, network, frozen=frozen)
    other, other_frozen = build_network(
        config.model, config.weights, type(state.label_map)({"label": ("a", "b")}), seed=config.seed
    )
    with pytest.raises(UserError, match="another model"):
        load_weights(folder, other, frozen=other_frozen)


def test_every_readable_validation_clip_is_counted_exactly_once(submitted: tuple, clips: SyntheticDataset) -> None:
    predictions = read_predictions(submitted[0] / "predictions.parquet")
    listed = {row["id"] for row in json.loads((clips.annotations / "validation.json").read_text())}
    assert sorted(predictions.clip_ids) == sorted(listed - {"1000003"})
    assert set(predictions.num_views.tolist()) == {6}
    np.testing.assert_allclose(predictions.probabilities["label"].sum(1), 1.0, atol=1e-5)


def test_the_evaluation_job_finds_the_same_figures_and_refuses_other_labels(
    submitted: tuple, submit: Submit, clips, tmp_path
) -> None:
    folder = submitted[0]
    best = json.loads((folder / "metrics.json").read_text())
    (checkpoint,) = [p for p in folder.glob("checkpoint_2*") if read_state(p).fingerprint == best["checkpoint"]]
    output = tmp_path / "again.parquet"
    flags = [str(checkpoint), "--data", str(clips.videos), "--annotations", str(clips.annotations)]
    status, text = submit(*flags, "--output", str(output), job="evaluate")
    assert status == 0, text
    expected, found = read_predictions(folder / "predictions.parquet"), read_predictions(output)
    assert found.clip_ids == expected.clip_ids
    np.testing.assert_array_equal(found.probabilities["label"], expected.probabilities["label"])

    other = write_dataset(tmp_path / "clips", layout="ek100", train_clips=8, validation_clips=8)
    flags = [str(checkpoint), "--data", str(other.videos), "--annotations", str(other.annotations)]
    status, text = submit(*flags, "--layout", "ek100", job="evaluate")
    assert status != 0
    assert "was trained with label map" in text
    assert "Traceback" not in text


def test_unreadable_clips_are_listed_in_log_history_and_report(submitted: tuple) -> None:
    folder, _, _, output = submitted
    history = read_history(max(folder.glob("checkpoint_2*")))
    unreadable = [(row["epoch"], row["clip_id"]) for row in history if row["kind"] == "unreadable"]
    assert unreadable == [(0, "5"), (0, "1000003"), (1, "5"), (1, "1000003")]
    page = (folder / "report.html").read_text()
    for clip_id in ("5", "1000003"):
        assert f"clip {clip_id}: " in output
        assert re.search(rf"<td[^>]*>\s*(<code>)?{clip_id}\b", page)


def test_the_same_command_again_finds_the_run_finished(submitted: tuple, submit: Submit) -> None:
    folder, flags, _, _ = submitted
    before = sorted(folder.glob("checkpoint_2*"))
    status, output = submit(*flags)
    assert status == 0, output
    assert "continues after epoch 2 of 2" in output
    assert sorted(folder.glob("checkpoint_2*")) == before


def test_too_many_unreadable_clips_stop_the_run_with_the_reason(submit: Submit, clips, tmp_path) -> None:
    flags = ["--small", "--data", str(clips.videos), "--annotations", str(clips.annotations)]
    flags += ["--storage", str(tmp_path), "--name", "stops", "--optim.epochs", "2", "--data.max-unreadable", "0"]
    status, output = submit(*flags)
    assert status != 0
    assert "1 of 96 clips in the train split are unreadable" in output
    assert "Traceback" not in output
    assert not list((tmp_path / "stops").glob("checkpoint_2*"))


def test_a_run_cannot_continue_on_other_labels(submitted: tuple, submit: Submit, tmp_path) -> None:
    _, flags, _, _ = submitted
    other = write_dataset(tmp_path / "clips", layout="ssv2", train_clips=64, validation_clips=8)
    labels = json.loads((other.annotations / "labels.json").read_text())
    renamed = {(f"{name} again" if number == "0" else name): number for name, number in labels.items()}
    (other.annotations / "labels.json").write_text(json.dumps(renamed))
    for split in ("train", "validation"):
        rows = json.loads((other.annotations / f"{split}.json").read_text())
        old = next(name for name, number in labels.items() if number == "0")
        kept = [row for row in rows if row["template"].replace("[", "").replace("]", "") != old]
        (other.annotations / f"{split}.json").write_text(json.dumps(kept))
    replaced = [*flags, "--data", str(other.videos), "--annotations", str(other.annotations), "--optim.epochs", "3"]
    status, output = submit(*replaced)
    assert status != 0
    assert "label map" in output
    assert "Traceback" not in output
