"""A folded network gives the scores of the network, computes less, and leaves the network as it was."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from cast_ray.export.fold import fold
from cast_ray.models.assemble import assemble
from cast_ray.models.costs import input_shapes
from cast_ray.models.named import NAMED

MODELS = {
    "cast_tiny": 8,
    "cast_tiny_clip_clip": 20,
    "cast_tiny_videomae_videomae": 0,
    "cast_tiny_eva": 8,
    "cast_tiny_attention": 8,
    "cast_tiny_attention_adapter": 11,
    "cast_tiny_lateral": 8,
    "cast_tiny_late_concat": 8,
    "cast_tiny_to_spatial_only": 10,
    "cast_tiny_independent_no_adapters": 8,
    "cava_tiny_clock": 20,
    "ca2st_tiny_clock": 10,
    "ca2st_tiny_last1_clock_shared": 10,
    "ca2st_tiny_sequence": 0,
    "ca2st_tiny_average": 0,
    "audio_tiny": 20,
    "tokenshift_tiny": 20,
    "msca_qkv_tiny": 20,
    "msca_patch_qkv_tiny": 15,
}
"""Percent of the multiply-adds that are left out at least, of three blocks."""


def network_of(name):
    """Nothing is zero: fresh exchanges and adapters would hide what is done to them."""
    torch.manual_seed(2)
    network = assemble(NAMED[name], {"verb": 5, "noun": 3}).train()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network


def inputs_of(spec):
    draw = torch.Generator().manual_seed(3)
    return {
        name: torch.tensor([True, False, True]) if name == "has_audio" else torch.randn(3, *shape, generator=draw)
        for name, shape in input_shapes(spec).items()
    }


def multiply_adds(network, inputs):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(inputs)
    return counter.get_total_flops() // 2


@pytest.mark.parametrize("name", MODELS)
def test_scores_are_the_same_but_for_rounding_and_cost_less(name):
    network = network_of(name)
    inputs = inputs_of(network.spec)
    folded = fold(network)
    network.eval()
    with torch.no_grad():
        expected, found = network(inputs), folded(inputs)
    for field, logits in expected.items():
        assert torch.allclose(found[field], logits, rtol=0, atol=2e-6 * float(logits.abs().max())), field
    saved = 1 - multiply_adds(folded, inputs) / multiply_adds(network, inputs)
    assert saved >= MODELS[name] / 100


def test_the_given_network_stays_as_it_is():
    network = network_of("cast_tiny")
    names = {name: p.detach().clone() for name, p in network.named_parameters()}
    fold(network)
    assert network.training
    after = dict(network.named_parameters())
    assert after.keys() == names.keys()
    assert all(torch.equal(after[name], p) and after[name].requires_grad for name, p in names.items())


def test_a_missing_exchange_in_the_last_block_is_no_obstacle():
    """Blocks of CAST without exchange at the end: the spatial expert is then alone in the last block."""
    spec = NAMED["cast_tiny"]
    exchanges = tuple(dataclasses.replace(exchange, blocks=(1, 2)) for exchange in spec.exchanges)
    torch.manual_seed(2)
    network = assemble(dataclasses.replace(spec, exchanges=exchanges), {"label": 4}).eval()
    inputs = inputs_of(network.spec)
    with torch.no_grad():
        assert torch.allclose(fold(network)(inputs)["label"], network(inputs)["label"], atol=1e-6)


def test_what_is_left_out_really_has_no_influence():
    """A literal proof for CAST: the gradient of every score with respect to it is zero."""
    network = network_of("cast_tiny").eval()
    logits = network(inputs_of(network.spec))
    torch.cat(list(logits.values()), dim=1).square().sum().backward()
    without = {name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()}
    assert without
    assert all(name.startswith("exchanges.2.attention.temporal_to_spatial.") for name in without)
    left_out = sum(p.numel() for name, p in network.named_parameters() if name in without)
    joined = sum(p.numel() for name, p in network.named_parameters() if name.endswith("q_bias"))  # zeros for the keys
    assert sum(p.numel() for p in fold(network).parameters()) == (
        sum(p.numel() for p in network.parameters()) - left_out + joined
    )
