"""Reports of `cast-ray bench` take the place of assumptions, and wrong ones are refused with what is wrong."""

from __future__ import annotations

import copy
import json

import pytest

from cast_ray.errors import UserError
from cast_ray.planning.datasets import dataset_for
from cast_ray.planning.gpus import GPUS
from cast_ray.planning.rates import data_rates, gpu_rate, read_reports

MODEL = {
    "model": "cast_base_patch16_224",
    "checkpoint_activations": False,
    "multiply_adds_per_clip": {"inference": 390e9, "training": 880e9},
    "environment": {"device": "NVIDIA H200"},
    "results": [
        {"batch": 8, "variant": "eager-bf16", "training": {"clips_per_second": 100.0}},
        {"batch": 64, "variant": "eager-bf16", "training": {"clips_per_second": 200.0}},
        {"batch": 64, "variant": "compiled-bf16", "training": {"clips_per_second": 300.0}},
        {"batch": 128, "variant": "eager-bf16", "reason": "out of memory"},
    ],
}


TRAIN = {
    "model": "cast_base_patch16_224",
    "checkpoint_activations": False,
    "multiply_adds_per_clip": {"training": 880e9},
    "environment": {"device": "NVIDIA H200"},
    "precision": "bf16",
    "workers": 2,
    "batch": 6,
    "bare": {"clips_per_second": 240.0},
    "stack": {"clips_per_second": 228.0},
    "ratio": {"clips_per_second": 0.95},
}


def _path(clips_per_second, **stages):
    return {"clips_per_second_per_worker": clips_per_second, "seconds_per_clip": stages}


DATA = {
    "workers": 2,
    "kinds": {
        "kinetics": {
            "clips": {
                "videos": [{"frames": 280}, {"frames": 320}],
                "stored_bytes_per_clip": {"original": 400e3, "short-gop": 900e3, "jpeg": 900e3},
            },
            "paths": {
                "same-cpu": _path(8.0, read=0.01, decode=0.1, crop=0.02, other=0.03, augment=0.5, transfer=-0.3),
                "short-gop": _path(20.0, decode=0.05),
                "jpeg": _path(100.0, decode=0.01),
            },
        },
        "something": {
            "clips": {"videos": [{"frames": 36}], "stored_bytes_per_clip": {"original": 90e3, "jpeg": 720e3}},
            "paths": {
                "same-cpu": _path(25.0, read=0.001, decode=0.02, crop=0.007, other=0.002, augment=0.1),
                "jpeg": _path(80.0, decode=0.01),
            },
        },
    },
}


@pytest.fixture
def write(tmp_path):
    def write(content, name="report.json"):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write


def _gpu(reports, name="h200", **changes):
    values = {"precision": "bf16", "micro_batch": 6, "checkpointed": False, **changes}
    return gpu_rate(reports, GPUS[name], name, **values)


def _dataset(recipe="ssv2", **changes):
    values = dict.fromkeys(("train_clips", "validation_clips", "classes", "seconds", "fps"))
    return dataset_for(recipe, **values | changes)


def _data(reports, media="jpeg", dataset=None, **changes):
    values = {"frames": 16, "sound": False, "jpeg_frame_rate": None, **changes}
    return data_rates(reports, dataset or _dataset(), media, **values)


def test_without_a_report_the_vendors_rate_counts_in_part_and_says_so():
    rate = _gpu(())
    assert rate.value == pytest.approx(0.45 * 989e12)
    assert "stated by the vendor" in rate.origin
    assert "assumed" in rate.origin


def test_the_measured_speed_of_the_nearest_batch_counts(write):
    reports = read_reports([write(MODEL)])
    assert _gpu(reports).value == pytest.approx(100 * 2 * 880e9)
    assert _gpu(reports, micro_batch=100).value == pytest.approx(200 * 2 * 880e9)
    assert "report.json" in _gpu(reports).origin


def test_measured_decoding_counts_per_core_without_colours(write):
    reports = read_reports([write(DATA)])
    found = _data(reports, "original")
    # SSV2's 48 frames are nearer to 36 than to 300; original videos are decoded as a whole.
    assert found.core_seconds.value == pytest.approx(0.03 * 48 / 36)
    assert found.stored_bytes.value == pytest.approx(90e3 * 48 / 36)
    long = _data(reports, "original", _dataset("k400"))
    assert long.core_seconds.value == pytest.approx(0.16)


def test_jpeg_costs_by_the_frames_that_are_stored_and_sampled(write):
    reports = read_reports([write(DATA)])
    assert _data(reports).core_seconds.value == pytest.approx(1 / 80)
    assert _data(reports, frames=32).core_seconds.value == pytest.approx(2 / 80)
    assert _data(reports).stored_bytes.value == pytest.approx(720e3 * 48 / 36)
    assert _data(reports, jpeg_frame_rate=6).stored_bytes.value == pytest.approx(720e3 * 24 / 36)
    # Of a long clip the report holds 45 frames, of 300.
    assert _data(reports, dataset=_dataset("k400")).stored_bytes.value == pytest.approx(900e3 * 300 / 45)


def test_a_kind_that_was_not_measured_for_this_way_of_storing_is_passed_over(write):
    found = _data(read_reports([write(DATA)]), "short-gop")
    assert found.core_seconds.value == pytest.approx(1 / 20)


def test_a_model_that_only_hears_reads_no_frames():
    found = _data((), frames=0, sound=True)
    assert found.stored_bytes.value == pytest.approx(4 * 21e3)
    assert found.core_seconds.value == pytest.approx(3e-3)


@pytest.mark.parametrize("field", ["checkpoint_activations", "multiply_adds_per_clip", "environment", "model"])
def test_a_missing_field_of_a_model_report_is_named(write, field):
    content = {key: value for key, value in MODEL.items() if key != field}
    with pytest.raises(UserError, match=f"no field {field}"):
        _gpu(read_reports([write(content)]))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("clips_per_second_per_worker", None, "no field kinds.something.paths.jpeg.clips_per_second_per_worker"),
        ("clips_per_second_per_worker", "fast", "has 'fast' in the field kinds.something.paths.jpeg"),
        ("clips_per_second_per_worker", 0, "has '0' in the field"),
        ("seconds_per_clip", [], "seconds_per_clip, which must be an object"),
        ("seconds_per_clip", None, "no field kinds.something.paths.jpeg.seconds_per_clip"),
    ],
)
def test_a_missing_or_senseless_field_of_a_data_report_is_named(write, field, value, message):
    content = copy.deepcopy(DATA)
    path = content["kinds"]["something"]["paths"]["jpeg"]
    if value is None:
        del path[field]
    else:
        path[field] = value
    with pytest.raises(UserError, match=message):
        _data(read_reports([write(content)]))


def test_what_the_whole_stack_keeps_lowers_the_speed_of_the_model(write):
    both = read_reports([write(MODEL), write(TRAIN, "train.json")])
    assert _gpu(both).value == pytest.approx(100 * 2 * 880e9 * 0.95)
    assert "x 0.950 of the whole stack" in _gpu(both).origin


def test_a_train_report_alone_has_the_speed_of_its_own_bare_loop_per_gpu(write):
    reports = read_reports([write(TRAIN)])
    assert _gpu(reports).value == pytest.approx(120 * 2 * 880e9 * 0.95)
    with pytest.raises(UserError, match="was measured in bf16, the run has float32"):
        _gpu(reports, precision="float32")
    with pytest.raises(UserError, match="measured on 'NVIDIA H200', but --gpu is a100-80"):
        _gpu(reports, "a100-80")


def test_a_stack_that_was_faster_by_chance_promises_nothing(write):
    reports = read_reports([write(TRAIN | {"ratio": {"clips_per_second": 1.02}})])
    assert _gpu(reports).value == pytest.approx(120 * 2 * 880e9)


def test_fp16_is_taken_to_be_as_fast_as_bf16(write):
    reports = read_reports([write(MODEL)])
    assert _gpu(reports, precision="fp16").value == _gpu(reports).value
    assert _gpu((), "v100-32", precision="fp16").value == pytest.approx(0.45 * 125e12)


def test_another_gpu_precision_or_checkpointing_is_refused(write):
    reports = read_reports([write(MODEL)])
    with pytest.raises(UserError, match="measured on 'NVIDIA H200', but --gpu is a100-80"):
        _gpu(reports, "a100-80")
    with pytest.raises(UserError, match="measured on 'NVIDIA L40S', but --gpu is l4"):
        _gpu(read_reports([write(MODEL | {"environment": {"device": "NVIDIA L40S"}})]), "l4")
    with pytest.raises(UserError, match="variant eager-float32"):
        _gpu(reports, precision="float32")
    with pytest.raises(UserError, match="checkpoint_activations False, the run True"):
        _gpu(reports, checkpointed=True)


def test_a_gpu_without_bf16_says_so():
    with pytest.raises(UserError, match="v100-32 has no such matrix units; use --scale"):
        _gpu((), "v100-32")


@pytest.mark.parametrize("content", ["not json", "[]", "{}", '{"results": [], "kinds": {}}'])
def test_what_is_no_report_is_refused(write, content):
    with pytest.raises(UserError, match="--rates is"):
        read_reports([write(content)])


def test_a_missing_file_and_two_reports_of_one_kind_are_refused(write, tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        read_reports([tmp_path / "none.json"])
    with pytest.raises(UserError, match="two reports of one kind"):
        read_reports([write(MODEL), write(MODEL, "second.json")])


def test_unmeasured_paths_are_told(write):
    content = copy.deepcopy(DATA)
    for kind in content["kinds"].values():
        kind["paths"] = {"jpeg": {"reason": "took too long"}}
    with pytest.raises(UserError, match="no measured path 'jpeg'"):
        _data(read_reports([write(content)]))


def test_a_dataset_that_nobody_published_asks_for_every_missing_number():
    with pytest.raises(UserError, match="give --validation-clips --clip-seconds --clip-fps, or one of"):
        _dataset("custom", train_clips=100, classes=(5,))
    found = _dataset("custom", train_clips=100, validation_clips=10, classes=(5,), seconds=2.0, fps=25.0)
    assert (found.train_clips.value, found.num_classes, found.frames) == (100, {"label": 5}, 50)
    with pytest.raises(UserError, match="--train-clips is 0"):
        _dataset(train_clips=0)
