"""A checkpoint, a run or an exported file as a model that predicts."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from cast_ray.data.decode import UnreadableVideo, open_video
from cast_ray.data.sampling import uniform_test_views
from cast_ray.errors import UserError
from cast_ray.export.merge import export
from cast_ray.inference import Recogniser
from cast_ray.weights.moved import MovedWeights

DOCS = Path(__file__).parents[2] / "docs" / "prediction.md"


@pytest.fixture(scope="module")
def model(run) -> Recogniser:
    return Recogniser.load(run.folder)


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "model.safetensors"
    export(str(run.folder), str(path), moved=MovedWeights(), console=Console(quiet=True))
    return path


def test_the_three_lines_of_the_documentation_work_as_they_stand(run, clips: Path, tmp_path: Path, monkeypatch, capsys):
    text = DOCS.read_text()
    lines = re.search(r"```python\n(from cast_ray\.inference import Recogniser\n.*?)```", text, re.DOTALL)[1]
    assert len(lines.strip().splitlines()) == 3
    shutil.copytree(run.folder, tmp_path / "runs" / "ssv2")
    shutil.copy(clips / "arm_wrestling_k400.mp4", tmp_path / "clip.mp4")
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    for line in lines.strip().splitlines():
        exec(compile(line, "docs", "single", dont_inherit=True), namespace)  # as at the prompt: the last one prints
    shown = capsys.readouterr().out
    assert "clip.mp4, 10.0 s, 6 views" in shown
    assert len(re.findall(r"^ +\d+\.\d%  \w", shown, re.MULTILINE)) == 5


def test_probabilities_are_the_mean_softmax_of_the_views_computed_step_by_step(model: Recogniser, run, clips: Path):
    path = clips / "arm_wrestling_k400.mp4"
    video = open_video(path.read_bytes(), decoder="pyav")
    network, spec = run.network, run.network.spec
    views = []
    for indices in uniform_test_views(video.num_frames, 4, 2):
        frames = torch.from_numpy(video.frames(indices).copy()).permute(0, 3, 1, 2)
        height, width = frames.shape[2:]
        wide = torch.nn.functional.interpolate(frames, size=(16, 16 * width // height), mode="bilinear")
        spare = wide.shape[3] - 16
        views += [wide[..., left : left + 16] for left in (0, spare // 2, spare)]
    pixels = torch.stack(views).float().div(255).permute(0, 2, 1, 3, 4)
    mean, std = (torch.tensor(values).view(3, 1, 1, 1) for values in (spec.video.mean, spec.video.std))
    with torch.inference_mode():
        expected = network((pixels - mean) / std)["label"].softmax(-1).mean(0)
    answer = model.predict(path)
    np.testing.assert_allclose(answer.probabilities["label"], expected, atol=1e-5)
    assert answer.views == 6
    assert answer.seconds == pytest.approx(10.0)


def test_run_checkpoint_exported_file_uri_and_bytes_give_the_same_answer(model, run, exported: Path, clips: Path):
    clip = clips / "nasa_with_audio.mp4"
    expected = model.predict(str(clip)).probabilities["label"]
    for place in (run.checkpoint, run.folder.as_uri(), exported, exported.as_uri()):
        np.testing.assert_array_equal(Recogniser.load(place).predict(clip).probabilities["label"], expected)
    np.testing.assert_array_equal(model.predict(clip.read_bytes()).probabilities["label"], expected)
    np.testing.assert_array_equal(model.predict(clip.as_uri()).probabilities["label"], expected)


def test_the_best_checkpoint_of_a_run_is_taken_and_not_the_latest(model, run, clips: Path):
    clip = clips / "rotated_90.mov"
    latest = Recogniser.load(run.folder / "checkpoint_2").predict(clip).probabilities["label"]
    assert np.abs(latest - model.predict(clip).probabilities["label"]).max() > 1e-3


@pytest.mark.parametrize(
    ("name", "seconds"),
    [
        ("arm_wrestling_k400.mp4", 10.0),
        ("flipping_pancake_k400.mkv", 10.333),
        ("nasa_with_audio.mp4", 13.013),
        ("rotated_90.mov", 0.1),
        ("unordered_timestamps.mov", 0.125),
    ],
)
def test_every_intact_real_clip_is_predicted_by_a_model_that_sees_and_hears(action_run, clips: Path, name, seconds):
    answer = Recogniser.load(action_run.folder).predict(clips / name)
    assert {field: len(values) for field, values in answer.probabilities.items()} == {"verb": 3, "noun": 4}
    assert answer.seconds == pytest.approx(seconds, abs=1e-3)
    for values in answer.probabilities.values():
        assert values.sum() == pytest.approx(1, abs=1e-5)


def test_verbs_and_nouns_make_actions_ranked_by_the_product(action_run, clips: Path):
    answer = Recogniser.load(action_run.folder).predict(clips / "nasa_with_audio.mp4")
    verbs, nouns = answer.probabilities["verb"].astype(float), answer.probabilities["noun"].astype(float)
    names = action_run.label_map.names
    pairs = sorted(
        ((v * n, f"{names['verb'][i]} {names['noun'][j]}") for i, v in enumerate(verbs) for j, n in enumerate(nouns)),
        reverse=True,
    )
    assert list(answer.top(3)) == ["verb", "noun", "action"]
    assert [score.name for score in answer.top(4)["action"]] == [name for _, name in pairs[:4]]
    np.testing.assert_allclose([score.probability for score in answer.top(4)["action"]], [p for p, _ in pairs[:4]])


def test_a_part_of_a_clip_is_predicted_as_a_file_of_that_part(model, coloured: Callable[..., Path], tmp_path: Path):
    long = coloured(tmp_path / "long.mp4", ("red", 3), ("green", 2), ("blue", 3))
    part = coloured(tmp_path / "part.mp4", ("green", 2))
    found = model.predict(long, start_s=3, stop_s=5)
    assert found.seconds == pytest.approx(2)
    np.testing.assert_allclose(found.probabilities["label"], model.predict(part).probabilities["label"], atol=0.02)


def test_other_views_are_taken_on_request(run, clips: Path):
    assert Recogniser.load(run.folder, views=(3, 1)).predict(clips / "rotated_90.mov").views == 3
    with pytest.raises(UserError, match=r"views are 2 x 2; .* 1 or 3 crops"):
        Recogniser.load(run.folder, views=(2, 2))


def test_loading_leaves_the_callers_random_numbers_alone(run):
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    Recogniser.load(run.folder)
    assert torch.equal(torch.rand(4), expected)


def test_what_is_no_video_says_so(model, clips: Path, tmp_path: Path):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("a list of things to do\n" * 99)
    (tmp_path / "cut.mp4").write_bytes((clips / "arm_wrestling_k400.mp4").read_bytes()[:30_000])
    for name, reason in (
        ("empty.mp4", "file is empty"),
        ("text.mp4", "it is no video, or its beginning or index is missing or damaged"),
        ("cut.mp4", "it is no video, or its beginning or index is missing or damaged"),
    ):
        with pytest.raises(UnreadableVideo, match=reason):
            model.predict(tmp_path / name)
    with pytest.raises(UnreadableVideo, match="it opens, but frames cannot be decoded"):
        model.predict(clips / "corrupted.mp4")
    with pytest.raises(UserError, match=r"missing\.mp4' does not exist"):
        model.predict(tmp_path / "missing.mp4")
    with pytest.raises(UserError, match="is a folder"):
        model.predict(tmp_path)


def test_a_video_of_two_frames_is_predicted(model, coloured: Callable[..., Path], tmp_path: Path):
    assert model.predict(coloured(tmp_path / "two.mp4", ("red", 0.2))).seconds == pytest.approx(0.2)


def test_a_place_without_a_model_is_refused_before_anything_is_loaded(tmp_path: Path, clips: Path):
    with pytest.raises(UserError, match=r"there is no checkpoint at '.*nowhere'; give the folder of a run"):
        Recogniser.load(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"rotated_90\.mov' is a file, but not one that `cast-ray export` has written"):
        Recogniser.load(clips / "rotated_90.mov")
    with pytest.raises(UserError, match=r"is neither a checkpoint .* nor a run"):
        Recogniser.load(tmp_path)


def test_a_checkpoint_of_another_architecture_names_the_first_mismatch(run, tmp_path: Path):
    shutil.copytree(run.checkpoint, tmp_path / "other")
    state = json.loads((tmp_path / "other" / "state.json").read_text())
    state["config"]["model"]["num_frames"] = 8  # more positions than the tensors have
    (tmp_path / "other" / "state.json").write_text(json.dumps(state))
    with pytest.raises(UserError, match=r"belongs to another model: .* other shape \['[\w.]+ \([\d, ]+\) instead of"):
        Recogniser.load(tmp_path / "other")


def test_a_gpu_that_is_not_there_is_refused(run, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="device is cuda, but torch finds no GPU"):
        Recogniser.load(run.folder, device="cuda")
    assert Recogniser.load(run.folder).device.type == "cpu"


def test_bf16_gives_nearly_the_same_answer(model, run, clips: Path):
    clip = clips / "arm_wrestling_k400.mp4"
    rough = Recogniser.load(run.folder, precision="bf16").predict(clip).probabilities["label"]
    exact = model.predict(clip).probabilities["label"]
    assert 0 < np.abs(rough - exact).max() < 0.1
