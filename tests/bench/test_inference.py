"""`cast-ray bench inference`: the same clips for every variant, figures that can be checked by hand, honest memory."""

from __future__ import annotations

import dataclasses
import io
import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from rich.console import Console

from cast_ray.bench import apart, command, inference
from cast_ray.bench.inference import compared, summary
from cast_ray.bench.inference_show import show_inference
from cast_ray.bench.inference_variant import Case, Source, load_network, measure, prepare
from cast_ray.errors import UserError
from cast_ray.export.serving import Serving, random_media

SOURCE = Source(exported=None, model="spatial_tiny", num_classes={"label": 7}, image_size=16, frames=4)
CLIPS = 5


def turn(seconds, logits=None):
    figures = {
        "seconds": seconds,
        "cpu_seconds": [2 * x for x in seconds],
        "first_seconds": seconds[0],
        "memory_at_rest": 10,
        "peak_memory": int(100 * seconds[0]),
    }
    return figures if logits is None else {**figures, "logits": logits}


def one_hot(answers):
    return {"logits_label": np.eye(3)[answers]}


def test_figures_of_several_turns():
    found = summary([turn([1.0, 3.0, 2.0]), turn([4.0, 5.0])])
    assert found["median_seconds"] == 3.0
    assert found["p90_seconds"] == pytest.approx(4.6)
    assert (found["median_cpu_seconds"], found["least_cpu_seconds"]) == (6.0, 2.0)
    assert (found["peak_memory"], found["memory_at_rest"]) == (400, 10)


def test_accuracy_is_compared_with_the_first_variant():
    turns = {
        "float32": [turn([1.0], one_hot([0, 1, 2, 0])), turn([1.0])],
        "int8": [turn([1.0], one_hot([0, 1, 1, 2]))],
        "bf16": [{"reason": "no such processor"}],
    }
    first, second, third = compared(turns, np.array([[0], [1], [2], [2]]), ["label"])
    assert first["accuracy"] == {"label": {"top1": 0.75, "change": 0.0, "same_answer": 1.0}}
    assert second["accuracy"] == {"label": {"top1": 0.75, "change": 0.0, "same_answer": 0.5}}
    assert third == {"variant": "bf16", "reason": "no such processor"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Clips, and what onnxruntime runs."""
    folder = tmp_path_factory.mktemp("media")
    for name, medium in random_media(load_network(SOURCE).spec, CLIPS).items():
        np.save(folder / f"{name}.npy", medium.numpy())
    assert prepare(case(folder, "onnx-int8"))["bytes"] < (folder / "onnx.onnx").stat().st_size
    return folder


def case(folder, variant):
    return Case(variant=variant, source=SOURCE, folder=folder, batch=2, warm_up=0, steps=2, threads=None, answers=True)


@pytest.mark.parametrize(
    ("variant", "rounding"),
    [("float32", 0.0), ("folded", 1e-6), ("onnx", 1e-5), ("bf16", 0.05), ("int8", 0.1), ("onnx-int8", 0.1)],
)
def test_every_variant_answers_all_clips_as_the_network_does_but_for_its_rounding(folder, variant, rounding):
    """The last batch is smaller than the others; what rounds gives other numbers, so that it is known to have acted."""
    media = random_media(load_network(SOURCE).spec, CLIPS)
    with torch.inference_mode():
        parts = [Serving(load_network(SOURCE))(frames=part)["logits_label"] for part in media["frames"].split(2)]
    expected = torch.cat(parts).numpy()
    result = measure(case(folder, variant))
    found = result["logits"]["logits_label"]
    scale = np.abs(expected).max()
    assert found.shape == (CLIPS, 7)
    assert np.abs(found - expected).max() <= rounding * scale
    if rounding >= 0.05:
        assert np.abs(found - expected).max() > 1e-4 * scale
    assert len(result["seconds"]) == len(result["cpu_seconds"]) == 2
    assert result["peak_memory"] >= result["memory_at_rest"] > 10**7


def test_a_process_for_onnxruntime_has_no_torch_in_its_memory(folder):
    code = (
        "import sys, pickle; from cast_ray.bench.inference_variant import measure;"
        "result = measure(pickle.load(sys.stdin.buffer)); assert 'torch' not in sys.modules;"
        "print(result['peak_memory'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=pickle.dumps(case(folder, "onnx")),
        capture_output=True,
        timeout=120,
        check=True,
    )
    assert 10**7 < int(done.stdout) < 2 * 10**8


@pytest.fixture
def pretended(monkeypatch):
    """Measurements that take no time; int8 cannot run."""
    order = []

    def run_apart(function, one, *, time_limit):
        if function is prepare:
            return {}
        order.append(one.variant)
        if one.variant == "int8":
            raise apart.NoResultError("no kernel")
        return turn([0.5])

    monkeypatch.setattr(inference, "run_apart", run_apart)
    return order


def test_variants_take_turns_and_one_that_fails_is_not_tried_again(pretended, capsys):
    arguments = ["--model", "spatial_tiny", "--variants", "float32", "int8", "onnx", "--rounds", "2", "--json"]
    assert command.main(["inference", *arguments]) == 0
    assert pretended == ["float32", "int8", "onnx", "float32", "onnx"]
    report = json.loads(capsys.readouterr().out)
    assert [result.get("reason") for result in report["results"]] == [None, "no kernel", None]
    costs = report["costs"]
    assert costs["folded"]["multiply_adds"] < costs["float32"]["multiply_adds"]


def test_the_table_has_every_variant_and_every_reason(pretended, capsys):
    assert command.main(["inference", "--model", "spatial_tiny", "--variants", "float32", "int8"]) == 0
    out = capsys.readouterr().out
    assert "spatial_tiny: float32 0.19 M parameters" in out
    assert "int8: no kernel" in out


def test_the_table_has_the_accuracy():
    figures = {"top1": 0.5, "change": -0.125, "same_answer": 0.75}
    report = {
        "model": "cast_tiny",
        "costs": {},
        "batch": 1,
        "threads": 1,
        "rounds": 1,
        "steps": 1,
        "clips": 8,
        "results": [{"variant": "int8", **summary([turn([0.25])]), "accuracy": {"verb": figures}}],
    }
    text = io.StringIO()
    show_inference(report, Console(file=text, width=120))
    assert "50.0% -12.5, same 75.0%" in text.getvalue()
    assert "250" in text.getvalue()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give either --model NAME or --checkpoint PLACE"),
        (["--model", "cast_tiny", "--checkpoint", "x"], "give either"),
        (["--model", "cast_tiny", "--shards", "x"], "--shards measures the accuracy of a --checkpoint"),
        (["--model", "cast_tiny", "--batch", "0"], "--batch is 0"),
        (["--model", "cast_huge"], "cast_huge"),
        (["--checkpoint", "nowhere"], "there is no checkpoint at .*nowhere"),
    ],
)
def test_mistakes_are_told_before_anything_runs(pretended, arguments, message):
    with pytest.raises(UserError, match=message):
        command.main(["inference", *arguments])
    assert not pretended


def test_a_real_measurement_in_a_process_of_its_own(folder):
    """What is measured here goes through `run_apart` unchanged."""
    one = dataclasses.replace(case(folder, "onnx"), answers=True)
    found = apart.run_apart(measure, one, time_limit=120)
    assert np.allclose(found["logits"]["logits_label"], measure(one)["logits"]["logits_label"])
