"""A search as a user runs it: submitted to a cluster, with a trial that fails, and its results opened."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cast_ray.configuration import read_configuration
from cast_ray.data.synthetic import write_dataset
from cast_ray.training.schedule import rates_of_run

SPACE = """
from ray import tune

SPACE = {
    "weights.spatial": tune.grid_search(["random", "/nowhere/weights.pth"]),
    "optim.base_lr": tune.loguniform(1e-3, 1e-2),
}
"""


@pytest.fixture(scope="module")
def searched(submit: Callable[..., tuple[int, str]], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("search")
    clips = write_dataset(folder / "clips", layout="ssv2", train_clips=32, validation_clips=16)
    (folder / "space.py").write_text(SPACE)
    flags = ["--small", "--data", str(clips.videos), "--annotations", str(clips.annotations)]
    flags += ["--storage", str(folder), "--name", "first", "--space", str(folder / "space.py")]
    flags += ["--method.search", "random", "--method.trials", "1", "--optim.epochs", "1", "--seed", "3"]
    flags += ["--views"]
    status, output = submit(*flags, job="tune")
    assert status == 0, output
    return folder / "first", output


def test_a_trial_that_fails_is_told_with_its_reason_and_the_other_one_completes(searched) -> None:
    folder, output = searched
    good, bad = sorted(json.loads((folder / "trials.json").read_text()), key=lambda trial: trial["error"] is not None)
    assert good["values"]["weights.spatial"] == "random"
    assert [(report["epoch"], report["views"]) for report in good["reports"]] == [(1, False), (1, True)]
    assert "/nowhere/weights.pth" in bad["error"]
    assert "/2  complete" in output
    assert "failed: " in output


def test_the_leaderboard_and_the_best_settings_are_there(searched) -> None:
    folder, _ = searched
    (best,) = (trial for trial in json.loads((folder / "trials.json").read_text()) if trial["error"] is None)
    page = (folder / "leaderboard.html").read_text()
    assert best["name"] in page
    assert "/nowhere/weights.pth" in page
    config = read_configuration(str(folder / "best.json"))
    assert config.optim.base_lr == best["values"]["optim.base_lr"]
    assert (config.optim.epochs, config.storage, config.seed) == (1, str(folder.parent), 3)


def test_each_trial_is_a_run_of_its_own_that_other_commands_understand(searched) -> None:
    folder, _ = searched
    (best,) = (trial for trial in json.loads((folder / "trials.json").read_text()) if trial["error"] is None)
    run = folder / "runs" / best["name"]
    assert list(run.glob("checkpoint_*/state.json"))
    assert read_configuration(str(run)).optim.base_lr == best["values"]["optim.base_lr"]


def test_tune_writes_hyper_parameters_for_tensorboard(searched) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    folder, _ = searched
    (best,) = (trial for trial in json.loads((folder / "trials.json").read_text()) if trial["error"] is None)
    events = EventAccumulator(str(folder / "trials" / best["name"]))
    events.Reload()
    content = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    settings = HParamsPluginData.FromString(content).session_start_info.hparams
    assert settings["optim.base_lr"].number_value == pytest.approx(best["values"]["optim.base_lr"])
    assert "ray/tune/score" in events.Tags()["scalars"]


POPULATION = """
from ray import tune

SPACE = {"optim.base_lr": tune.loguniform(1e-3, 3e-2)}
"""


def test_the_worse_member_of_a_population_goes_on_from_the_better_ones_checkpoint(submit, tmp_path) -> None:
    clips = write_dataset(tmp_path / "clips", layout="ssv2", train_clips=32, validation_clips=16)
    (tmp_path / "space.py").write_text(POPULATION)
    flags = ["--small", "--data", str(clips.videos), "--annotations", str(clips.annotations)]
    flags += ["--storage", str(tmp_path), "--name", "pbt", "--space", str(tmp_path / "space.py"), "--log-every", "1"]
    flags += ["--method.scheduler", "pbt", "--method.trials", "2", "--method.exploit-every", "1"]
    status, output = submit(*flags, "--optim.epochs", "2", job="tune")
    assert status == 0, output
    trials = {trial["name"]: trial for trial in json.loads((tmp_path / "pbt" / "trials.json").read_text())}
    assert [trial["error"] for trial in trials.values()] == [None, None], output
    ((stage,),) = (trial["takeovers"] for trial in trials.values() if trial["takeovers"])
    heir, donor = trials[stage["trial"]], trials[stage["taken_from"]]
    assert (stage["after"], heir["reports"][-1]["epoch"], donor["takeovers"]) == (1, 2, [])
    assert donor["reports"][0]["score"] >= heir["reports"][0]["score"]
    assert "takes over from trial" in output
    assert stage["trial"] in (tmp_path / "pbt" / "leaderboard.html").read_text()

    runs = tmp_path / "pbt" / "runs"
    copied, last = sorted(path.parent for path in (runs / heir["reports"][-1]["run"]).glob("checkpoint_*/state.json"))
    given = runs / stage["taken_from"] / copied.name
    for name in ("history.jsonl", "weights.safetensors", "optimizer.safetensors"):
        assert (copied / name).read_bytes() == (given / name).read_bytes()
    before, after = ((folder / "history.jsonl").read_text().splitlines() for folder in (copied, last))
    assert after[: len(before)] == before
    steps = [json.loads(line) for line in after if json.loads(line)["kind"] == "step"]
    assert [row["step"] for row in steps] == list(range(1, len(steps) + 1))
    settings = [
        read_configuration(str(runs / name)).optim for name in (stage["taken_from"], heir["reports"][-1]["run"])
    ]
    assert settings[0].base_lr == donor["values"]["optim.base_lr"] != settings[1].base_lr
    assert settings[1].base_lr == stage["values"]["optim.base_lr"]
    halves = (steps[: len(steps) // 2], steps[len(steps) // 2 :])
    for optim, rows in zip(settings, halves, strict=True):
        rates = rates_of_run(optim, global_batch=32, steps_per_epoch=len(steps) // 2)
        assert [row["learning_rate"] for row in rows] == pytest.approx([rates[row["step"] - 1] for row in rows])
    for kept in (tmp_path / "pbt" / "trials").glob("*/checkpoint_*"):
        assert [path.name for path in kept.iterdir()] == ["reference.json"]
