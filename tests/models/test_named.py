"""Every named model at tiny size does what training, evaluation and deployment ask of a model.

Models of full size are variants of the same names; test_counts.py builds them without memory.
"""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
import torch
import torch._inductor.config
from torch import nn

from cast_ray.models.assemble import assemble
from cast_ray.models.groups import parameter_groups
from cast_ray.models.named import NAMED
from cast_ray.models.options import ModelOptions, vary
from cast_ray.models.spec import AUDIO, VIDEO

TINY = [name for name in NAMED if "_tiny" in name]
COUNTS = {"verb": 3, "noun": 4}


def same_variant(name):
    return name.replace("base_patch16_224", "tiny").replace("base_patch16_400", "tiny")


def test_every_variant_of_full_size_has_its_tiny_one():
    base = {same_variant(name).partition("_last")[0] for name in NAMED if "_base_" in name}
    assert base <= {name.partition("_last")[0] for name in TINY}
    assert {name for name in NAMED if "_base_" not in name and "_large_" not in name} == set(TINY)


@pytest.fixture(params=TINY)
def network(request, randomise):
    """The whole network with random weights, fresh in no part."""
    return randomise(assemble(NAMED[request.param], COUNTS)).eval()


def loss_of(network, inputs):
    logits = network(inputs)
    return sum(nn.functional.cross_entropy(x, torch.arange(len(x)) % x.shape[1]) for x in logits.values())


def gradients(network, inputs):
    network.zero_grad()
    loss_of(network, inputs).backward()
    return {name: None if p.grad is None else p.grad.clone() for name, p in network.named_parameters()}


@pytest.mark.parametrize("train_experts", [False, True], ids=["frozen experts", "all trains"])
def test_a_step_of_training_from_a_fresh_start_lowers_the_loss(request, network, train_experts, inputs_for):
    """Forward, backward, optimiser: what is to train gets gradients and moves, what is frozen does neither."""
    network = assemble(network.spec, COUNTS).train()
    network.freeze(train_experts)
    inputs = inputs_for(network.spec)
    optimizer = torch.optim.AdamW(parameter_groups(network, 0.05, 0.75), lr=3e-3)
    for group in optimizer.param_groups:
        group["lr"] *= group["lr_scale"]
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    first = loss_of(network, inputs)
    first.backward()
    assert {name for name, p in network.named_parameters() if p.grad is not None} <= set(
        network.trainable_names(train_experts)
    )
    optimizer.step()
    assert loss_of(network, inputs) < first
    moved = {name for name, p in network.named_parameters() if not torch.equal(p, before[name])}
    assert moved
    assert moved <= set(network.trainable_names(train_experts))


def test_every_parameter_gets_a_gradient_but_for_the_last_words_to_patches_that_nobody_reads(network, inputs_for):
    """With no zeros in it, a tensor without gradient is one that the model does not use."""
    given = gradients(network, inputs_for(network.spec))
    idle = {name for name, grad in given.items() if grad is None or not grad.any()}
    assert all(name.startswith(f"exchanges.{network.depth - 1}.") for name in idle)
    # The temporal expert reads out its patches, so what it hears last counts.
    assert not any("_to_temporal" in name for name in idle) or network.experts["temporal"].layout.special


def test_the_state_makes_the_round_trip(network, inputs_for, tmp_path):
    torch.save(network.state_dict(), tmp_path / "state.pt")
    other = assemble(network.spec, COUNTS).eval()
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    inputs = inputs_for(network.spec)
    expected, actual = network(inputs), other(inputs)
    assert all(torch.equal(actual[field], expected[field]) for field in COUNTS)
    assert set(network.state_dict()) == {name for name, _ in network.named_parameters()}


def test_bf16_autocast_is_close_to_float32(network, inputs_for):
    inputs = inputs_for(network.spec)
    with torch.autocast("cpu", torch.bfloat16):
        actual = network(inputs)
        loss_of(network, inputs).backward()
    for field, expected in network(inputs).items():
        torch.testing.assert_close(actual[field].float(), expected, rtol=0, atol=0.1 * expected.abs().max().item())
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)


def test_weights_in_bf16_take_pixels_in_bf16_and_seconds_in_float32(network, inputs_for):
    """As evaluation and DeepSpeed give them."""
    inputs = inputs_for(network.spec)
    expected = network(inputs)
    cast = {name: x.bfloat16() if name in (VIDEO, AUDIO) else x for name, x in inputs.items()}
    actual = network.to(torch.bfloat16)(cast)
    for field in COUNTS:
        assert actual[field].dtype == torch.bfloat16
        # Frames that bf16 cannot tell apart would differ far more than rounding does.
        limit = 0.15 * expected[field].abs().max().item()
        torch.testing.assert_close(actual[field].float(), expected[field], rtol=0, atol=limit)


def test_checkpointed_activations_give_the_same_gradients_and_are_computed_twice(network, inputs_for):
    inputs, calls = inputs_for(network.spec), []
    first = next(iter(network.experts.values())).blocks[0]
    first.attention.register_forward_hook(lambda *_: calls.append(1))
    expected = gradients(network.train(), inputs)
    assert len(calls) == 1
    network.set_grad_checkpointing()
    actual = gradients(network, inputs)
    assert len(calls) == 3
    for name in expected:
        torch.testing.assert_close(actual[name], expected[name])


def test_checkpointed_activations_drop_the_same_paths(randomise, inputs_for):
    spec = NAMED["ca2st_tiny"]
    network = randomise(assemble(spec, COUNTS)).train()
    for module in network.modules():
        if hasattr(module, "drop_prob"):
            module.drop_prob = 0.5
    results = []
    for enable in (False, True):
        network.set_grad_checkpointing(enable)
        torch.manual_seed(0)
        results.append(gradients(network, inputs_for(spec)))
    for name in results[0]:
        torch.testing.assert_close(results[1][name], results[0][name])


@pytest.fixture
def shallow(network, randomise):
    """One block, for blocks are alike to a compiler; one without and one with exchanges where only some have them."""
    some = [exchange for exchange in network.spec.exchanges if exchange.blocks is not None]
    exchanges = tuple(
        replace(exchange, blocks=(2,)) if exchange in some else exchange for exchange in network.spec.exchanges
    )
    depth = ModelOptions(depth=2 if some else 1)
    return randomise(assemble(vary(replace(network.spec, exchanges=exchanges), depth), COUNTS)).eval()


@pytest.fixture
def clean_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.usefixtures("clean_compiler")
@torch.no_grad()
def test_it_compiles_as_one_graph(shallow, inputs_for):
    inputs = inputs_for(shallow.spec)
    expected, actual = shallow(inputs), torch.compile(shallow, backend="aot_eager", fullgraph=True)(inputs)
    for field in COUNTS:
        torch.testing.assert_close(actual[field], expected[field], rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("clean_compiler")
@pytest.mark.parametrize("name", ["cast_tiny_eva", "ca2st_tiny_clock", "tokenshift_tiny"])
def test_compiled_training_gives_the_same_gradients(name, randomise, inputs_for):
    network = randomise(assemble(vary(NAMED[name], ModelOptions(depth=1)), COUNTS)).train()
    inputs = inputs_for(network.spec)
    expected = gradients(network, inputs)
    actual = gradients(torch.compile(network, backend="aot_eager", fullgraph=True), inputs)
    for parameter, grad in expected.items():
        torch.testing.assert_close(actual[f"_orig_mod.{parameter}"], grad, rtol=1e-3, atol=1e-4)


@pytest.mark.usefixtures("clean_compiler")
@pytest.mark.parametrize("name", ["cast_tiny", "cava_tiny", "msca_kv_tiny"])
@torch.no_grad()
def test_it_compiles_to_machine_code(name, randomise, inputs_for):
    """Where there is a C++ compiler, which the first compilation needs most of a minute for."""
    network = randomise(assemble(vary(NAMED[name], ModelOptions(depth=1)), COUNTS)).eval()
    inputs = inputs_for(network.spec)
    backend = "inductor" if shutil.which("g++") else "aot_eager"
    with torch._inductor.config.patch(compile_threads=1):
        actual = torch.compile(network, backend=backend, fullgraph=True)(inputs)
    for field, expected in network(inputs).items():
        torch.testing.assert_close(actual[field], expected, rtol=1e-4, atol=1e-4)
