"""One variant of a model's step: what is measured, and that the training step really trains."""

from __future__ import annotations

import pytest
import torch

from cast_ray.bench import model as bench
from cast_ray.bench.model import VARIANTS, Job, measure, spec_for
from cast_ray.errors import UserError
from cast_ray.models.assemble import assemble


@pytest.fixture(autouse=True)
def quick_rate(monkeypatch):
    monkeypatch.setattr(bench, "matmul_rate", lambda device, dtype: 1e9)


def _job(variant: str = "eager-float32", **changes) -> Job:
    sizes = {"image_size": 16, "frames": 2, "warm_up": 1, "steps": 2}
    return Job(model="cast_tiny", variant=variant, batch=2, num_classes={"verb": 3, "noun": 4}, **sizes | changes)


@pytest.mark.parametrize("variant", ["eager-float32", "eager-bf16"])
def test_both_phases_have_speed_and_memory(variant):
    result = measure(_job(variant))
    for phase in ("inference", "training"):
        figures = result[phase]
        assert figures["clips_per_second"] == 2 / figures["best_seconds"] > 0
        assert figures["best_seconds"] <= figures["median_seconds"]
        assert figures["peak_memory"] >= figures["memory_at_rest"] > 0


@pytest.mark.parametrize("model", ["ca2st_tiny_clock", "msca_kv_tiny"])
def test_sound_times_and_fully_trained_models_run_too(model):
    job = Job(model=model, variant="eager-bf16", batch=1, num_classes={"label": 3}, warm_up=0, steps=1)
    assert measure(job)["training"]["clips_per_second"] > 0


def test_the_names_of_the_variants():
    assert set(VARIANTS) == {"eager-float32", "compiled-float32", "eager-bf16", "compiled-bf16"}
    job = _job("compiled-bf16")
    assert (job.compiled, job.dtype) == (True, torch.bfloat16)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_step_lowers_the_loss_and_leaves_frozen_weights_alone(dtype):
    torch.manual_seed(0)
    spec, classes = spec_for("cast_tiny", image_size=16, frames=2), {"label": 5}
    network = assemble(spec, classes).to(dtype).train()
    network.freeze()
    frozen = {name: weight.clone() for name, weight in network.named_parameters() if not weight.requires_grad}
    inputs = {"video": torch.randn(4, 3, 2, 16, 16, dtype=dtype)}
    step = bench._TrainingStep(network, network, inputs, classes, batch=4, device=torch.device("cpu"))
    step.optimizer.optimizer.param_groups[0]["lr"] = 3e-3
    losses = []
    for _ in range(20):
        step()
        losses.append(step.loss.item())
    assert losses[-1] < losses[0] - 0.02
    weights = dict(network.named_parameters())
    assert all(torch.equal(weights[name], before) for name, before in frozen.items())


def test_bf16_weights_follow_their_float32_copies():
    network = torch.nn.Linear(4, 3, dtype=torch.bfloat16)

    def call(inputs):
        return {"label": network(inputs["x"])}

    inputs = {"x": torch.randn(2, 4, dtype=torch.bfloat16)}
    step = bench._TrainingStep(network, call, inputs, {"label": 3}, batch=2, device=torch.device("cpu"))
    step()
    assert all(full.dtype == torch.float32 for full in step.optimizer.full)
    assert torch.equal(network.weight, step.optimizer.full[0].bfloat16())


def test_no_matrix_is_left_at_zero():
    network = assemble(spec_for("cast_tiny", image_size=None, frames=None), {"label": 3})
    assert any(weight.ndim > 1 and not weight.any() for weight in network.parameters())
    bench.fill_zeros(network)
    assert all(weight.any() for weight in network.parameters() if weight.ndim > 1)


def test_a_wrong_name_or_size_is_told():
    with pytest.raises(UserError, match="cast_huge"):
        spec_for("cast_huge", image_size=None, frames=None)
    with pytest.raises(UserError, match="num_frames"):
        spec_for("cast_tiny", image_size=None, frames=3)


def test_nothing_keeps_attention_from_the_fused_kernels(monkeypatch):
    """On CUDA they want bf16, four axes, no mask, channels next to each other and head sizes divisible by 8."""
    calls = []
    plain = torch.nn.functional.scaled_dot_product_attention

    def watched(query, key, value, *arguments, **options):
        calls.append(((query, key, value), arguments, options))
        return plain(query, key, value, *arguments, **options)

    monkeypatch.setattr("torch.nn.functional.scaled_dot_product_attention", watched)
    spec = spec_for("cast_base_patch16_224", image_size=None, frames=None)
    with torch.device("meta"):
        network = assemble(spec, {"label": 174}).bfloat16().train()
        network.freeze()
        network(torch.empty(2, *spec.video.shape, dtype=torch.bfloat16))
    assert len(calls) == 4 * 12
    for tensors, arguments, options in calls:
        assert not arguments
        assert not options
        for tensor in tensors:
            assert (tensor.ndim, tensor.dtype, tensor.stride(-1)) == (4, torch.bfloat16, 1)
            assert tensor.shape[-1] % 8 == 0
            assert all(stride % 8 == 0 for stride in tensor.stride()[:-1])
    # Self-attention reads queries, keys and values where the projection put them, without a copy.
    shapes = {tuple(query.shape) for (query, _, _), _, _ in calls}
    assert shapes == {(16, 12, 197, 64), (2, 12, 1568, 64), (16, 12, 196, 32), (392, 12, 8, 32)}
    for (query, key, value), _, _ in calls:
        if query.shape[-1] == 64:
            assert query._base is key._base is value._base is not None


@pytest.mark.parametrize("checkpointed", [False, True])
def test_the_whole_network_is_one_graph(checkpointed):
    network = assemble(spec_for("cast_tiny", image_size=16, frames=2), {"label": 3}).train()
    network.freeze()
    network.set_grad_checkpointing(checkpointed)
    whole = torch.compile(network, fullgraph=True, backend="eager")
    clip = torch.randn(2, 3, 2, 16, 16)
    torch.testing.assert_close(whole(clip)["label"], network(clip)["label"])
