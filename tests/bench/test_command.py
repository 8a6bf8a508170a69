"""`cast-ray bench`: one JSON object with every variant, or the reason why it has no figures."""

from __future__ import annotations

import json

import pytest

from cast_ray.bench import apart, command
from cast_ray.errors import UserError
from cast_ray.models.costs import count_costs, count_step
from cast_ray.models.named import NAMED

SMALL = ["--model", "spatial_tiny", "--batch", "2", "--warm-up", "0", "--steps", "1", "--threads", "1"]


def _phase(speed: float) -> dict[str, float]:
    return {"clips_per_second": speed, "peak_memory": 10**9}


@pytest.fixture
def pretended(monkeypatch):
    """Measurements with figures that can be checked by hand; one variant fails."""

    def run_apart(function, job, *, time_limit):
        if job.variant == "compiled-bf16":
            raise apart.NoResultError("no compiler")
        rate = {"eager-float32": 4e9, "compiled-float32": 5e9, "eager-bf16": 20e9}[job.variant]
        return {
            "matmul_multiply_adds_per_second": rate,
            "inference": _phase(10.0 * job.batch),
            "training": _phase(2.0 * job.batch),
        }

    monkeypatch.setattr(apart, "run_apart", run_apart)


def test_fractions_compare_needed_work_with_the_best_rate_of_the_precision(pretended, capsys):
    assert command.main(["model", "--model", "cast_tiny", "--batch", "3", "6"]) == 0
    report = json.loads(capsys.readouterr().out)
    forward = count_costs(NAMED["cast_tiny"], {"label": 174}).multiply_adds
    step = count_step(NAMED["cast_tiny"], {"label": 174})
    assert report["multiply_adds_per_clip"] == {"inference": forward, "training": step}
    assert report["matmul_multiply_adds_per_second"] == {"float32": 5e9, "bf16": 20e9}
    results = {(result["batch"], result["variant"]): result for result in report["results"]}
    assert len(results) == 8
    first = results[3, "eager-float32"]
    assert first["inference"]["achieved_fraction"] == pytest.approx(30 * forward / 5e9)
    assert first["training"]["achieved_fraction"] == pytest.approx(6 * step / 5e9)
    assert results[6, "eager-bf16"]["training"]["achieved_fraction"] == pytest.approx(12 * step / 20e9)


def test_a_variant_that_cannot_run_says_why_and_the_others_still_run(pretended, capsys):
    assert command.main(["model", "--model", "cast_tiny", "--variants", "compiled-bf16", "eager-bf16"]) == 0
    printed = capsys.readouterr()
    failed, done = json.loads(printed.out)["results"]
    assert failed == {"batch": 1, "variant": "compiled-bf16", "reason": "no compiler"}
    assert "training" in done
    assert "no compiler" in printed.err


def test_the_status_is_1_if_nothing_could_run(pretended, capsys):
    assert command.main(["model", "--model", "cast_tiny", "--variants", "compiled-bf16"]) == 1


def test_a_real_measurement_in_a_process_of_its_own(capsys):
    assert command.main(["model", *SMALL, "--variants", "eager-float32"]) == 0
    report = json.loads(capsys.readouterr().out)
    (result,) = report["results"]
    assert report["peak_memory_is"].startswith("largest resident set")
    assert report["environment"]["torch"]
    for phase in ("inference", "training"):
        assert 0 < result[phase]["achieved_fraction"] < 1.5
        # PyTorch alone needs more than 100 MB.
        assert result[phase]["peak_memory"] > 10**8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["speed"], "unknown command 'bench speed'"),
        (["model", "--model", "cast_huge"], "cast_huge"),
        (["model", "--model", "cast_tiny", "--batch", "0"], "--batch is 0"),
        (["model", "--model", "cast_tiny", "--steps", "0"], "--steps is 0"),
        (["model", "--model", "cast_tiny", "--classes", "1", "2", "3"], "--classes is 1 2 3"),
        (["model", "--model", "cast_tiny", "--image-size", "33"], "33"),
    ],
)
def test_mistakes_are_told_before_anything_runs(monkeypatch, arguments, message):
    monkeypatch.setattr(apart, "run_apart", lambda *_, **__: pytest.fail("it ran"))
    with pytest.raises(UserError, match=message):
        command.main(arguments)


def test_a_missing_gpu_is_told(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UserError, match="--device cpu"):
        command.main(["model", "--model", "cast_tiny", "--device", "cuda"])
