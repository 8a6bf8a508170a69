"""What all training jobs share: where data comes from, what the settings start from, and that they can be replayed."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from cast_ray.config import RunConfig
from cast_ray.configuration import read_configuration, write_configuration
from cast_ray.data.manifest import Clip, Manifest
from cast_ray.data.synthetic import write_dataset
from cast_ray.errors import UserError
from cast_ray.labels import LabelMap
from cast_ray.recipes import RECIPES
from cast_ray.recipes.small import small
from cast_ray.training.job import train_job

JOBS = Path(__file__).parents[2] / "jobs"
NAMES = sorted(path.stem.removeprefix("train_") for path in JOBS.glob("train_*.py"))


def load(name: str) -> ModuleType:
    """A job script as a module, without running it."""
    module = f"train_{name}"
    if module not in sys.modules:
        spec = importlib.util.spec_from_file_location(module, JOBS / f"{module}.py")
        assert spec is not None
        assert spec.loader is not None
        sys.modules[module] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[module])
    return sys.modules[module]


def start(name: str, *arguments: str) -> None:
    script = load(name)
    train_job(script.Job, script.__doc__, arguments)


@pytest.fixture
def started(monkeypatch) -> list[SimpleNamespace]:
    """The runs that jobs would have started."""
    runs: list[SimpleNamespace] = []

    def run(config, source, *, console, worker_logs):
        runs.append(SimpleNamespace(config=config, source=source, worker_logs=worker_logs))

    fake = ModuleType("cast_ray.runs")
    fake.run = run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cast_ray.runs", fake)
    return runs


@pytest.fixture
def printed(capsys):
    """What a job prints with --print-config."""

    def read(name: str, *arguments: str) -> str:
        start(name, *arguments, "--print-config")
        return capsys.readouterr().out

    return read


def test_there_is_a_job_for_every_dataset():
    assert NAMES == [
        "custom",
        "ek100",
        "epic_sounds",
        "k400",
        "kinetics_sound",
        "ssv2",
        "ucf101",
        "vggsound",
    ]


@pytest.mark.parametrize("name", NAMES)
def test_help_shows_an_example_for_a_cluster_and_a_small_one_that_parse(name, capsys, printed):
    with pytest.raises(SystemExit) as stopped:
        start(name, "--help")
    text = capsys.readouterr().out
    assert stopped.value.code == 0
    assert "ray job submit" in text
    document = (load(name).__doc__ or "").replace("\\\n", " ")
    commands = [line for line in document.splitlines() if f"python jobs/train_{name}.py" in line]
    assert len(commands) == 2
    assert ["--small" in line for line in commands] == [False, True]
    for line in commands:
        words = line.split(".py", 1)[1].split()
        config = read_back(printed(name, *words))
        config.check_experts()  # every expert's weights are in the example


@pytest.mark.parametrize("name", NAMES)
def test_the_text_beside_the_examples_names_flags_that_work(name, printed):
    """Such as `--config msca --weights.spatial FILE`: the words behind a colon, one line of them."""
    for line in (load(name).__doc__ or "").splitlines():
        words = line.strip().rpartition(": ")[2].split()
        if words and words[0] in ("--config", "--model.name"):
            assert read_back(printed(name, *words)) != RECIPES[load(name).Job.recipe]()


def read_back(text: str) -> RunConfig:
    return RunConfig.from_dict(json.loads(text))


@pytest.mark.parametrize("name", NAMES)
def test_without_flags_the_settings_are_those_of_the_recipe(name, printed):
    assert read_back(printed(name)) == RECIPES[load(name).Job.recipe]()
    assert read_back(printed(name, "--small")) == small(RECIPES[load(name).Job.recipe]())


def test_printed_settings_can_be_replayed_and_flags_still_win(printed, tmp_path):
    flags = ["--small", "--optim.epochs", "3", "--optim.betas", "0.8", "0.9", "--name", "first", "--augment.flip", "1"]
    text = printed("ek100", *flags)
    stored = tmp_path / "settings.json"
    stored.write_text(text)
    assert printed("ek100", "--config", str(stored)) == text
    assert printed("custom", f"--config={stored}") == text
    changed = read_back(printed("ek100", "--config", str(stored), "--optim.epochs", "4", "--name", "second"))
    assert (changed.optim.epochs, changed.name, changed.optim.betas) == (4, "second", (0.8, 0.9))


def test_the_settings_of_a_run_can_be_replayed_from_its_folder(printed, tmp_path):
    config = read_back(printed("k400", "--config", "msca", "--name", "first"))
    write_configuration(config, str(tmp_path / "first"))
    assert read_back(printed("k400", "--config", str(tmp_path / "first"))) == config


def test_msca_trains_by_its_own_recipe(printed):
    assert read_back(printed("k400", "--config", "msca")) == RECIPES["msca"]()


def test_another_model_keeps_the_recipe_and_has_its_own_sizes(printed):
    config = read_back(printed("vggsound", "--model.name", "cast_base_patch16_224"))
    assert config.model.name == "cast_base_patch16_224"
    assert config.model.options.audio_frames is None
    assert config.optim == RECIPES["vggsound"]().optim


def test_another_model_run_small_is_that_models_small_sibling(printed):
    for order in (["--small", "--model.name=ca2st_base_patch16_224"], ["--model.name", "ca2st_tiny", "--small"]):
        assert read_back(printed("ek100", *order)).model.name == "ca2st_tiny"


def test_a_prepared_dataset_is_used_as_it_is(started):
    start("ek100", "--small", "--shards", "s3://bucket/ek100", "--name", "first", "--worker-logs")
    (run,) = started
    assert run.source == "s3://bucket/ek100"
    assert run.config == RunConfig.from_dict({**small(RECIPES["ek100"]()).to_dict(), "name": "first"})
    assert run.worker_logs


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("ek100") / "clips", layout="ek100", train_clips=8, validation_clips=8)


def test_clips_without_a_file_stop_a_job_or_are_left_out_and_named(clips, tmp_path, started, capsys):
    videos = tmp_path / "videos"
    videos.mkdir()
    files = sorted(clips.videos.glob("*.mp4"))
    for file in files[1:]:
        os.link(file, videos / file.name)
    flags = ["--small", "--data", str(videos), "--annotations", str(clips.annotations)]
    with pytest.raises(UserError, match=rf"1 clips of 8 that have no video file .*{files[0].stem}"):
        start("ek100", *flags)
    assert started == []
    start("ek100", *flags, "--leave-out")
    (run,) = started
    assert len(run.source.clips) == 15
    assert files[0].stem in capsys.readouterr().out


def test_an_incomplete_dataset_with_all_classes_is_remarked_upon(monkeypatch, started, capsys):
    label_map = LabelMap({"label": tuple(f"class {index:02}" for index in range(101))})
    clips = tuple(
        Clip(clip_id=split, uri="x.mp4", labels=(0,), split=split, start_s=None, stop_s=None)
        for split in ("train", "validation")
    )
    asked = {}

    def read(data, annotations, *, split, on_skip):
        asked["split"] = split
        return Manifest(clips=clips, label_map=label_map)

    monkeypatch.setattr(load("ucf101"), "read_ucf101", read)
    start("ucf101", "--small", "--data", "v", "--annotations", "a", "--split", "3")
    assert asked == {"split": 3}
    assert "UCF-101, split 3, but 1 train clips instead of 9,624" in capsys.readouterr().out
    assert len(started) == 1


def test_own_clips_come_from_folders_or_from_a_table(tmp_path, started):
    table = write_dataset(tmp_path / "table", layout="table", train_clips=8, validation_clips=8)
    for split in ("train", "validation"):
        for label in ("fall", "lie down"):
            folder = tmp_path / "folders" / split / label
            folder.mkdir(parents=True)
            os.link(next(table.videos.glob("*.mp4")), folder / f"{split}.mp4")
    start("custom", "--small", "--data", str(table.videos), "--annotations", str(table.annotations))
    start("custom", "--small", "--data", str(tmp_path / "folders"))
    several, one = (run.source.label_map for run in started)
    assert several.fields == ("verb", "noun", "sound")
    assert one.num_classes == {"label": 2}


def test_own_clips_that_cannot_be_used_are_left_out_if_asked_and_differing_classes_told(tmp_path, started, capsys):
    for file in ("train/fall/1.mp4", "train/fall/notes.doc", "train/sit/1.mp4", "validation/fall/1.mp4"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    with pytest.raises(UserError, match="1 files whose names do not end as those of videos: train/fall/notes"):
        start("custom", "--small", "--data", str(tmp_path))
    assert started == []
    start("custom", "--small", "--data", str(tmp_path), "--leave-out")
    assert [clip.clip_id for clip in started[0].source.clips] == ["train/fall/1", "train/sit/1", "validation/fall/1"]
    said = capsys.readouterr().out
    assert "left out: " in said
    assert "note: 1 of 2 classes of 'label' have training clips but no validation clip" in said


@pytest.mark.parametrize(
    ("name", "flags", "message"),
    [
        ("ek100", [], "--data and --annotations not given; give --data and --annotations, or --shards"),
        ("ek100", ["--data", "videos"], "--annotations not given"),
        ("custom", ["--small"], "--data not given; give --data, or --shards"),
        ("ek100", ["--shards", "s", "--data", "d"], "--shards 's' and --data are given; leave one"),
        ("ek100", ["--shards", "s", "--leave-out"], "--leave-out concerns the reading of --data"),
        ("ek100", ["--data", "d", "--annotations", "a"], "Give --weights.spatial FILE"),
        ("ek100", ["--config", "ek10"], "there is no configuration 'ek10'; give a recipe (ssv2,"),
        ("ek100", ["--model.name", "cast_bas_patch16_224"], "did you mean cast_base_patch16_224"),
        ("ek100", ["--smal"], "unknown flag --smal; did you mean --small"),
        ("ek100", ["--split", "2"], "unknown flag --split"),
        ("custom", ["--leave-outs"], "unknown flag --leave-outs"),
        ("custom", ["--shards", "s", "--leave-out"], "--leave-out concerns the reading of --data"),
        ("vggsound", ["--model.name", "cast_base_patch16_224", "--weights.audio", "a", "--shards", "s"], "the experts"),
    ],
)
def test_a_mistake_is_answered_in_words(name, flags, message, started):
    with pytest.raises(UserError) as raised:
        start(name, *flags)
    assert message in str(raised.value)
    assert started == []


@pytest.mark.parametrize(
    ("name", "flags", "named"),
    [
        ("ucf101", ["--split", "4"], "--split"),
        ("ek100", ["--config"], "--config"),
        ("ek100", ["--seed", "x"], "--seed"),
    ],
)
def test_an_unreadable_value_ends_with_status_2_and_names_the_flag(name, flags, named, capsys):
    with pytest.raises(SystemExit) as stopped:
        start(name, *flags)
    shown = capsys.readouterr()
    assert (stopped.value.code, shown.out) == (2, "")
    assert named in shown.err


def test_a_replayed_configuration_is_found_where_it_was_written(tmp_path):
    config = RECIPES["ucf101"]()
    write_configuration(config, f"file://{tmp_path}/runs/first")
    assert read_configuration(f"file://{tmp_path}/runs/first") == config
