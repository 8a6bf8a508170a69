"""Clips without sound: nothing that stands in the place of their sound may reach the result or the gradients."""

from __future__ import annotations

import pytest
import torch

from cast_ray.models.assemble import assemble
from cast_ray.models.named import NAMED
from cast_ray.models.spec import AUDIO, AUDIO_TIMES, HAS_AUDIO, VIDEO

COUNTS = {"verb": 3, "noun": 4}
SILENT = [False, True, False]
NAMES = [
    *("audio_tiny", "cava_tiny", "cava_tiny_clock"),
    *("ca2st_tiny", "ca2st_tiny_average", "ca2st_tiny_sequence", "ca2st_tiny_clock", "ca2st_tiny_last1_clock_shared"),
]
GARBAGE = {
    "random": lambda x: torch.randn(x.shape) * 50,
    "NaN": lambda x: torch.full_like(x, torch.nan),
    "infinite": lambda x: torch.full_like(x, torch.inf),
    "zero": torch.zeros_like,
}


@pytest.fixture(params=NAMES)
def network(request, randomise):
    return randomise(assemble(NAMED[request.param], COUNTS))


@pytest.fixture
def inputs(network, inputs_for):
    return {**inputs_for(network.spec, batch=3), HAS_AUDIO: torch.tensor(SILENT)}


def with_garbage(inputs, kind):
    """The inputs with garbage wherever a silent clip's sound, or its seconds, would stand."""
    changed = dict(inputs)
    for name in (AUDIO, AUDIO_TIMES):
        if name in inputs:
            silent = ~inputs[HAS_AUDIO].view(-1, *[1] * (inputs[name].ndim - 1))
            changed[name] = torch.where(silent, GARBAGE[kind](inputs[name]), inputs[name])
    return changed


def gradients(network, inputs):
    network.zero_grad()
    logits = network(inputs)
    sum(x.square().sum() for x in logits.values()).backward()
    return {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("kind", GARBAGE)
def test_logits_do_not_depend_on_what_stands_in_the_place_of_sound(network, inputs, kind):
    expected, actual = network(inputs), network(with_garbage(inputs, kind))
    for field in COUNTS:
        assert torch.isfinite(actual[field]).all()
        assert torch.equal(actual[field], expected[field])


@pytest.mark.parametrize("kind", ["random", "NaN", "infinite"])
def test_gradients_are_finite_and_do_not_depend_on_it(network, inputs, kind):
    expected, actual = gradients(network, inputs), gradients(network, with_garbage(inputs, kind))
    assert actual.keys() == expected.keys()
    for name in expected:
        assert torch.isfinite(actual[name]).all(), name
        assert torch.equal(actual[name], expected[name]), name


def test_sound_is_heard_where_there_is_some(network, inputs):
    other = {**inputs, AUDIO: inputs[AUDIO].flip(2)}
    changed = (network(inputs)["verb"] - network(other)["verb"]).abs().amax(1) > 1e-4
    assert changed.tolist() == SILENT


def test_a_clip_does_not_depend_on_whether_its_neighbours_have_sound(network, inputs):
    results = [network({**inputs, HAS_AUDIO: torch.tensor([first, True, first])})["noun"][1] for first in (True, False)]
    assert torch.equal(*results)


def test_without_the_input_every_clip_has_sound(network, inputs):
    everywhere = network({**inputs, HAS_AUDIO: torch.ones(3, dtype=torch.bool)})
    left_out = network({name: x for name, x in inputs.items() if name != HAS_AUDIO})
    for field in COUNTS:
        torch.testing.assert_close(left_out[field], everywhere[field])


def test_a_batch_without_any_sound_can_be_trained_on(network, inputs):
    network.freeze()
    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=1e-3)
    silent = {**inputs, HAS_AUDIO: torch.zeros(3, dtype=torch.bool)}
    before = network(silent)["verb"].detach()
    sum(x.square().sum() for x in network.train()(silent).values()).backward()
    optimizer.step()
    after = network.eval()(silent)["verb"]
    assert torch.isfinite(after).all()
    assert not torch.equal(after, before)


@pytest.mark.parametrize("merge", ["sum", "average", "sequence"])
def test_silent_ca2st_sees_what_cast_with_the_same_weights_sees(merge, randomise, inputs_for):
    """Spatial and temporal features of a silent clip are those of a network that has no audio expert at all."""
    name = {"sum": "ca2st_tiny"}.get(merge, f"ca2st_tiny_{merge}")
    whole = randomise(assemble(NAMED[name], COUNTS)).eval()
    cast = assemble(NAMED["cast_tiny"], COUNTS).eval()
    inputs = {**inputs_for(whole.spec), HAS_AUDIO: torch.zeros(2, dtype=torch.bool)}
    state = whole.state_dict()
    other = {"spatial": "temporal", "temporal": "spatial"}
    renamed = {}
    for ours in cast.state_dict():
        theirs = ours
        for kind in ("reduce", "expand"):
            for expert in other:
                theirs = theirs.replace(f".{kind}.{expert}.", f".{kind}.{expert}_with_{other[expert]}.")
        renamed[ours] = state[theirs] if theirs in state else cast.state_dict()[ours]
    cast.load_state_dict(renamed)
    expected, actual = cast.forward_features(inputs[VIDEO]), whole.forward_features(inputs)
    for expert in other:
        torch.testing.assert_close(actual[expert], expected[expert])
