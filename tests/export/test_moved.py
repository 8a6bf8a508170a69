"""Whatever opens a run finds experts that have moved by the same flags, and says the same where it does not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from cast_ray.config import WeightsConfig
from cast_ray.errors import UserError
from cast_ray.evaluation.replica import Replica
from cast_ray.evaluation.trained import check_weights, model_at
from cast_ray.explain.command import main as analyze
from cast_ray.explain.model import model_here, open_network
from cast_ray.export.command import main as export
from cast_ray.inference import Recogniser
from cast_ray.inference.command import main as predict
from cast_ray.weights.moved import MovedWeights, absolute_paths

CLIP = Path(__file__).parents[1] / "clips" / "rotated_90.mov"
MISSING = r"weights\.temporal, on which the checkpoint was trained, cannot be found: .*--weights\.temporal PATH"

OPENERS: dict[str, Callable[[str, MovedWeights], torch.nn.Module]] = {
    "evaluation": lambda place, moved: Replica(model_at(place, moved))._network,
    "prediction": lambda place, moved: Recogniser.load(place, moved=moved)._network,
    "explanation": lambda place, moved: open_network(model_here(place, device="cpu", moved=moved)).network,
}


@pytest.fixture
def moved(run, tmp_path: Path) -> MovedWeights:
    """Where the temporal expert is now; it is no longer where the run had it."""
    target = tmp_path / "elsewhere" / "temporal.pth"
    target.parent.mkdir()
    run.files["temporal"].rename(target)
    return MovedWeights(temporal=str(target))


@pytest.mark.parametrize("opened", OPENERS.values(), ids=OPENERS)
def test_every_way_to_open_a_run_finds_what_has_moved(run, moved, clip, opened):
    with pytest.raises(UserError, match=MISSING):
        opened(str(run.folder), MovedWeights())
    with torch.inference_mode():
        assert torch.equal(opened(str(run.folder), moved)(clip)["label"], run.best(clip)["label"])


@pytest.mark.parametrize("opened", OPENERS.values(), ids=OPENERS)
def test_flags_that_change_nothing_are_refused_everywhere(run, opened):
    with pytest.raises(UserError, match=r"--weights\.audio is given, but the run read no such weights"):
        opened(str(run.folder), MovedWeights(audio="x.pth"))


@pytest.mark.parametrize("opened", OPENERS.values(), ids=OPENERS)
def test_runs_that_trained_their_experts_need_no_files_for_them(make_run, clip, opened):
    run = make_run(train_experts=True)
    for path in run.files.values():
        path.unlink()
    with torch.inference_mode():
        assert torch.equal(opened(str(run.folder), MovedWeights())(clip)["label"], run.best(clip)["label"])
    with pytest.raises(UserError, match=r"--weights\.spatial is given, but the run trained its experts"):
        opened(str(run.folder), MovedWeights(spatial="x.pth"))


def test_commands_have_the_flags(run, moved, tmp_path: Path, capsys):
    flag = ["--weights.temporal", str(moved.temporal)]
    for words, command in (
        ([str(CLIP), "--checkpoint", str(run.folder), "--json", "--views", "1", "1"], predict),
        (["attention", str(run.folder), str(CLIP), "--output", str(tmp_path / "looks")], analyze),
        ([str(run.folder), "--output", str(tmp_path / "model.safetensors")], export),
    ):
        with pytest.raises(UserError, match=MISSING):
            command(words)
        capsys.readouterr()
        assert command([*words, *flag]) == 0
        if command is predict:
            assert json.loads(capsys.readouterr().out)[0]["views"] == 1
    with pytest.raises(UserError, match=r"--weights\.temporal is given, but .*model\.safetensors holds all weights"):
        predict([str(CLIP), "--checkpoint", str(tmp_path / "model.safetensors"), *flag])


def test_missing_weights_are_found_out_before_any_tensor_is_read(run, moved):
    (run.checkpoint / "weights.safetensors").unlink()
    with pytest.raises(UserError, match=MISSING):
        check_weights(model_at(str(run.checkpoint)).config)
    check_weights(model_at(str(run.checkpoint), moved).config)


def test_paths_do_not_depend_on_the_working_folder_and_names_stay_names(tmp_path: Path, monkeypatch):
    (tmp_path / "clip.pth").touch()
    monkeypatch.chdir(tmp_path)
    weights = WeightsConfig(spatial="clip.pth", temporal="MCG-NJU/videomae-base", audio="random", folder="later")
    assert absolute_paths(weights) == WeightsConfig(
        spatial=str(tmp_path / "clip.pth"),
        temporal="MCG-NJU/videomae-base",
        audio="random",
        folder=str(tmp_path / "later"),
    )
