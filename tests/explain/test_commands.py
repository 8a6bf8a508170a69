from __future__ import annotations

import io
import json
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from cast_ray.errors import UserError
from cast_ray.evaluation.predictions import Predictions, write_predictions
from cast_ray.explain.command import main


def analyze(*arguments):
    assert main([str(argument) for argument in arguments]) == 0


def brightness(path):
    return np.asarray(Image.open(path).convert("RGB"), dtype=float)


@pytest.fixture(scope="session")
def silent_clip(data):
    rows = data.dataset.split("validation").to_pylist()
    return next(row["clip_id"] for row in rows if not row["sound_codec"])


@pytest.fixture(scope="session")
def sounding_clip(data):
    rows = data.dataset.split("validation").to_pylist()
    return next(row["clip_id"] for row in rows if row["sound_codec"])


def test_robustness_writes_curves_for_videos_and_for_their_shards_alike(tmp_path, make_run, data, capsys):
    run = make_run("ca2st_tiny")
    common = (run, "--damage", "reverse", "mute", "--device", "cpu")
    analyze("robustness", *common, "--shards", data.dataset.uri, "--output", tmp_path / "shards")
    source = ("--layout", "table", "--data", data.source.videos, "--annotations", data.source.annotations)
    analyze("robustness", *common, *source, "--output", tmp_path / "videos")
    first, second = (json.loads((tmp_path / name / "robustness.json").read_text()) for name in ("shards", "videos"))
    assert first == second
    assert first["clips"] == 12
    assert [curve["corruption"] for curve in first["curves"]] == ["reverse", "mute"]
    assert "reverse" in capsys.readouterr().out


def test_robustness_refuses_data_of_other_classes(tmp_path, make_run, data):
    annotations = tmp_path / "annotations"
    annotations.mkdir()
    for split in ("train", "validation"):
        lines = (data.source.annotations / f"{split}.csv").read_text().splitlines()
        (annotations / f"{split}.csv").write_text("\n".join(",".join(line.split(",")[:2]) for line in lines) + "\n")
    with pytest.raises(UserError, match="label map"):
        analyze(
            *("robustness", make_run("cast_tiny"), "--layout", "table"),
            *("--data", data.source.videos, "--annotations", annotations, "--output", tmp_path / "out"),
        )
    assert not (tmp_path / "out").exists()


def test_attention_of_a_video_file_is_drawn_filmed_and_summed_up(tmp_path, make_run, data, sounding_clip):
    analyze("attention", make_run("cava_tiny"), data.source.videos / sounding_clip, "--output", tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    exchanges = {"audio_to_spatial", "spatial_to_audio"}
    drawn = {f"{name}{end}.png" for name in exchanges for end in ("", "_over_time")}
    pictures = {"overview.png", "entropy.png", *drawn}
    assert names == pictures | {"overlay.mp4", "attention.json"}
    for name in pictures:
        assert brightness(tmp_path / name).std() > 10, name
    with av.open(str(tmp_path / "overlay.mp4")) as film:
        frames = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
    assert len(frames) == 8
    assert (frames[0] != frames[-1]).any()
    summary = json.loads((tmp_path / "attention.json").read_text())
    assert summary["true"] is None
    assert set(summary["entropy"]) == exchanges
    assert all(len(values) == 2 for values in summary["entropy"].values())  # the last block's counts for nothing


def test_attention_of_a_silent_clip_leaves_sound_out_and_says_so(tmp_path, make_run, data, silent_clip, capsys):
    analyze(
        *("attention", make_run("ca2st_tiny"), silent_clip),
        *("--shards", data.dataset.uri, "--output", tmp_path),
    )
    assert "the clip has no sound" in capsys.readouterr().out
    summary = json.loads((tmp_path / "attention.json").read_text())
    assert set(summary["entropy"]) == {"spatial_to_temporal", "temporal_to_spatial"}
    assert set(summary["true"]) == {"verb", "noun", "sound"}


def test_a_model_that_only_talks_to_sound_has_nothing_to_show_for_a_silent_clip(tmp_path, make_run, data, silent_clip):
    with pytest.raises(UserError, match="the clip has no sound"):
        analyze("attention", make_run("cava_tiny"), data.source.videos / silent_clip, "--output", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_attention_refuses_models_without_and_clips_that_are_not_there(tmp_path, make_run, data):
    with pytest.raises(UserError, match="no attention between experts"):
        analyze("attention", make_run("spatial_tiny"), data.source.videos / "any.mp4")
    with pytest.raises(UserError, match=r"'nowhere\.mp4' is no file; .*--shards"):
        analyze("attention", make_run("cast_tiny"), "nowhere.mp4")
    with pytest.raises(UserError, match="no clip is given"):
        analyze("attention", make_run("cast_tiny"))


@pytest.mark.parametrize("name", ["arm_wrestling_k400.mp4", "rotated_90.mov"])
def test_attention_works_on_real_clips(tmp_path, make_run, name):
    clip = Path(__file__).parents[1] / "clips" / name
    analyze("attention", make_run("cast_tiny"), clip, "--output", tmp_path)
    assert brightness(tmp_path / "overview.png").std() > 10


def test_a_report_finds_an_overview_of_every_example_and_the_mean_entropy(make_run, data):
    run = make_run("cast_tiny")
    rows = data.dataset.split("validation")
    label_map, clips = data.manifest.label_map, rows.num_rows
    write_predictions(
        run / "predictions.parquet",
        Predictions(
            clip_ids=tuple(rows["clip_id"].to_pylist()),
            labels=np.array(rows["labels"].to_pylist()),
            probabilities={
                field: np.full((clips, size), 1 / size, np.float32) for field, size in label_map.num_classes.items()
            },
            num_views=np.ones(clips, np.int32),
            label_map=label_map,
            checkpoint="0123456789abcdef",
        ),
    )
    analyze("attention", run, "--report", "--shards", data.dataset.uri, "--examples", "3")
    folder = run / "attention"
    index = json.loads((folder / "index.json").read_text())
    assert len(index) == 3
    for entry in index:
        assert set(entry) == {"clip_id", "title", "file", "caption"}
        assert Image.open(io.BytesIO((folder / entry["file"]).read_bytes())).format == "PNG"
    entropy = json.loads((folder / "entropy.json").read_text())
    assert {name: len(values) for name, values in entropy.items()} == {
        "temporal_to_spatial": 2,
        "spatial_to_temporal": 3,
    }
    assert all(0 < value <= 1 for values in entropy.values() for value in values)

    from cast_ray.report.source import read_attention

    assert len(read_attention(str(folder)).pictures) == 3


def test_unknown_commands_are_named(capsys):
    with pytest.raises(UserError, match="attention"):
        main(["attentoin"])
    assert main(["--help"]) == 0
    assert "robustness" in capsys.readouterr().out
