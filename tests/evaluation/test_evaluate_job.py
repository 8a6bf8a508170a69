"""jobs/evaluate.py up to the model: which checkpoint and which clips are taken, and what is said about them."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pyarrow.fs as pafs
import pytest
import torch

import cast_ray.cluster
import cast_ray.data.prepare
import cast_ray.data.shards
import cast_ray.evaluation.distributed
import cast_ray.evaluation.metrics
import cast_ray.evaluation.predict
import cast_ray.evaluation.predictions
import cast_ray.runs
from cast_ray.data.manifest import VALIDATION
from cast_ray.data.order import Position
from cast_ray.data.pipeline import check_unreadable
from cast_ray.errors import UserError
from cast_ray.labels import LABEL, LabelMap
from cast_ray.recipes.toy import toy
from cast_ray.training.checkpoint import CheckpointState, write_checkpoint

JOB = Path(__file__).parents[2] / "jobs" / "evaluate.py"
TRAINED_ON = "0123456789abcdef"


@pytest.fixture
def evaluate(monkeypatch: pytest.MonkeyPatch) -> Callable[..., SimpleNamespace]:
    """Runs the job without a cluster and a model, and tells with what these would have been called."""

    def run(*flags: str, fingerprint: str = TRAINED_ON) -> SimpleNamespace:
        seen = SimpleNamespace(clips=None, opened=None)

        def prepare_run(clips, storage, console):
            seen.clips = clips
            return SimpleNamespace(fingerprint=fingerprint)

        def open_complete(uri):
            seen.opened = uri
            return SimpleNamespace(fingerprint=fingerprint)

        def predict(model, dataset, split, **asked):
            seen.model, seen.split, seen.config = model, split, model.config
            seen.asked = SimpleNamespace(**asked)
            return SimpleNamespace(rate="2 clips")

        monkeypatch.setattr(cast_ray.cluster, "connect", lambda: True)
        monkeypatch.setattr(cast_ray.evaluation.distributed, "check_replicas", lambda *_, **__: None)
        monkeypatch.setattr(cast_ray.evaluation.predict, "predict", predict)
        monkeypatch.setattr(cast_ray.evaluation.predictions, "read_predictions", lambda _: None)
        monkeypatch.setattr(cast_ray.data.prepare, "prepare_run", prepare_run)
        monkeypatch.setattr(cast_ray.data.shards, "open_complete", open_complete)
        monkeypatch.setattr(cast_ray.evaluation.metrics, "evaluate", lambda _: None)
        monkeypatch.setattr(cast_ray.runs, "show", lambda *_: None)
        spec = importlib.util.spec_from_file_location("evaluate_job", JOB)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, "evaluate_job", module)
        spec.loader.exec_module(module)
        monkeypatch.setattr(sys, "argv", ["evaluate.py", *flags])
        module.main()
        return seen

    return run


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """Two checkpoints, of which the first is better."""
    for number, accuracy in ((1, 0.9), (2, 0.4)):
        folder = tmp_path / "runs" / "first" / f"checkpoint_{number}"
        folder.mkdir(parents=True)
        state = CheckpointState(
            position=Position(epoch=number),
            config=dataclasses.replace(toy(), name="first").to_dict(),
            label_map=LabelMap({LABEL: ("a", "b")}),
            dataset=TRAINED_ON,
            frozen="f",
            validation={"label_top1": accuracy},
        )
        tensors = {"weights": {"w": torch.zeros(1)}, "steps": {"steps": torch.zeros(())}}
        write_checkpoint(folder, state, tensors, [])
    return tmp_path / "runs" / "first"


@pytest.fixture
def ucf101(tmp_path: Path) -> list[str]:
    """Flags for videos and lists of which each is for training in one split and for validation in the other."""
    videos, lists = tmp_path / "videos" / "A", tmp_path / "lists"
    videos.mkdir(parents=True)
    lists.mkdir()
    (lists / "classInd.txt").write_text("1 A\n")
    for split, (train, test) in {1: (1, 2), 2: (2, 1)}.items():
        (videos / f"v_A_g0{split}_c01.avi").touch()
        (lists / f"trainlist0{split}.txt").write_text(f"A/v_A_g0{train}_c01.avi 1\n")
        (lists / f"testlist0{split}.txt").write_text(f"A/v_A_g0{test}_c01.avi\n")
    return ["--layout", "ucf101", "--data", str(videos.parent), "--annotations", str(lists)]


def validation(seen: SimpleNamespace) -> list[str]:
    return [clip.clip_id for clip in seen.clips.split(VALIDATION)]


def test_the_official_split_can_be_chosen(evaluate, run_folder, ucf101):
    """Otherwise a network of split 2 is tested on clips that it was trained on."""
    assert validation(evaluate(str(run_folder), *ucf101)) == ["v_A_g02_c01"]
    assert validation(evaluate(str(run_folder), *ucf101, "--split", "2")) == ["v_A_g01_c01"]


def test_clips_without_a_video_are_left_out_if_asked(evaluate, run_folder, ucf101, capsys):
    lists = Path(ucf101[-1])
    with (lists / "testlist01.txt").open("a") as file:
        file.write("A/v_A_g09_c01.avi\n")
    with pytest.raises(UserError, match="names 1 clips of 2 that have no video file"):
        evaluate(str(run_folder), *ucf101)
    assert validation(evaluate(str(run_folder), *ucf101, "--leave-out")) == ["v_A_g02_c01"]
    assert "left out: " in capsys.readouterr().out


def test_a_checkpoint_is_itself_and_a_run_its_best_one(evaluate, run_folder):
    for place, name in ((run_folder / "checkpoint_2", "checkpoint_2"), (run_folder, "checkpoint_1")):
        for uri in (str(place), f"file://{place}"):
            seen = evaluate(uri, "--shards", "s3://bucket/shards")
            assert (seen.model.place, seen.opened) == (str(run_folder / name), "s3://bucket/shards")
            assert (seen.clips, seen.split, seen.config.name) == (None, VALIDATION, "first")


def test_a_run_on_s3_is_evaluated(evaluate, run_folder, s3_bucket):
    storage, bucket = pafs.FileSystem.from_uri(s3_bucket)
    pafs.copy_files(str(run_folder), f"{bucket}/runs/first", destination_filesystem=storage)
    seen = evaluate(f"{s3_bucket}/runs/first", "--shards", "shards")
    assert seen.model.place == f"{bucket}/runs/first/checkpoint_1"


def test_other_data_than_those_of_training_are_remarked_upon(evaluate, run_folder, capsys):
    evaluate(str(run_folder), "--shards", "shards")
    assert "note" not in capsys.readouterr().out
    evaluate(str(run_folder), "--shards", "shards", fingerprint="fedcba9876543210")
    said = "note: the checkpoint was trained on dataset 0123456789abcdef, this is fedcba9876543210: make sure that none"
    assert said in capsys.readouterr().out


def test_the_predictions_go_where_the_same_command_finds_them_again(evaluate, run_folder, tmp_path):
    storage = str(Path(toy().storage).absolute())
    places = [
        evaluate(str(run_folder), "--shards", "shards", *flags).asked.output
        for flags in ([], [], ["--per-view"], ["--temporal-views", "7"], ["--precision", "bf16"])
    ]
    assert all(place.startswith(f"{storage}/evaluations/first-") for place in places)
    assert places[0] == places[1]
    assert len(set(places)) == 4
    assert evaluate(str(run_folder), "--shards", "s", "--output", str(tmp_path / "o")).asked.output == f"{tmp_path}/o"


def test_how_the_model_is_used_can_be_changed(evaluate, run_folder):
    flags = ["--num-workers", "3", "--use-gpu", "False", "--cpus-per-worker", "2", "--spatial-crops", "1"]
    config = evaluate(str(run_folder), "--shards", "shards", *flags, "--max-unreadable", "0.5").config
    assert (config.predictors, config.scale.use_gpu, config.scale.cpus_per_worker) == (3, False, 2.0)
    assert (config.test.spatial_crops, config.test.temporal_views) == (1, toy().test.temporal_views)
    assert config.data.max_unreadable == 0.5
    with pytest.raises(UserError, match="clips-per-part"):
        evaluate(str(run_folder), "--shards", "shards", "--clips-per-part", "0")


def test_weights_that_have_moved_are_given_with_the_flags_of_the_export(evaluate, run_folder, tmp_path):
    """This run has its experts in its checkpoints: a flag that the job does not hand on would pass in silence."""
    with pytest.raises(UserError, match=r"--weights\.spatial is given, but the run trained its experts"):
        evaluate(str(run_folder), "--shards", "s", "--weights.spatial", str(tmp_path / "clip.pth"))


def test_too_many_unreadable_clips_are_told_with_the_flag_of_this_job(evaluate, run_folder):
    flag = evaluate(str(run_folder), "--shards", "shards", "--max-unreadable", "0.1").asked.unreadable_flag
    with pytest.raises(UserError, match=r"more than max-unreadable 10\.00%.* or raise --max-unreadable$"):
        check_unreadable(2, 10, 0.1, VALIDATION, flag=flag)
    with pytest.raises(UserError, match=r"or raise --data\.max-unreadable$"):
        check_unreadable(2, 10, 0.1, VALIDATION)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "--data not given; give --data, or --shards with a dataset"),
        (["--shards", "s", "--data", "d"], "--shards 's' and --data are given; leave one of them away"),
        (["--shards", "s", "--split", "2"], "--split concerns the reading of --data, but --shards is given"),
        (["--shards", "s", "--leave-out"], "--leave-out concerns the reading of --data, but --shards is given"),
        (["--data", "d", "--annotations", "a", "--split", "2"], "split is 2, but the layout is 'ssv2'"),
    ],
)
def test_data_are_given_in_exactly_one_way(evaluate, run_folder, flags, said):
    with pytest.raises(UserError) as raised:
        evaluate(str(run_folder), *flags)
    assert said in str(raised.value)


def test_a_place_without_a_checkpoint_is_refused(evaluate, tmp_path):
    with pytest.raises(UserError, match="is neither a checkpoint"):
        evaluate(str(tmp_path), "--shards", "shards")
