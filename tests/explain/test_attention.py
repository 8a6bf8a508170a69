from __future__ import annotations

import math

import pytest
import torch

from cast_ray.errors import UserError
from cast_ray.explain.attention import attention_probabilities, by_exchange, check_attends, recorded_attention
from cast_ray.models.assemble import assemble
from cast_ray.models.named import NAMED
from cast_ray.models.spec import AUDIO, AUDIO_TIMES, HAS_AUDIO, VIDEO, VIDEO_TIMES

CLASSES = {"verb": 6, "noun": 5, "sound": 4}
ATTENDING = [
    "cast_tiny",
    "cava_tiny",
    "ca2st_tiny",
    "ca2st_tiny_last1_clock_shared",
    "ca2st_tiny_sequence",
    "cast_tiny_space_time_windows",
    "cast_tiny_attention_adapter",
    "cast_tiny_to_spatial_only",
    "cast_tiny_videomae_clip",
]


def network_of(name):
    network = assemble(NAMED[name], CLASSES).eval()
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=draw))
    return network


def inputs_of(spec, batch=2):
    draw = torch.Generator().manual_seed(1)
    every = {
        VIDEO: torch.randn(batch, *spec.video.shape, generator=draw),
        AUDIO: torch.randn(batch, *spec.audio.shape, generator=draw),
        HAS_AUDIO: torch.ones(batch, dtype=torch.bool),
        VIDEO_TIMES: torch.rand(batch, spec.video.steps, 2, generator=draw),
        AUDIO_TIMES: torch.rand(batch, 2, generator=draw),
    }
    return {name: every[name] for name in spec.needs}


@pytest.mark.parametrize("name", ATTENDING)
def test_recording_changes_no_bit_of_the_output_and_leaves_no_hook(name):
    network = network_of(name)
    inputs = inputs_of(network.spec)
    with torch.inference_mode():
        before = network(inputs)
        with recorded_attention(network) as maps:
            during = network(inputs)
        count = len(maps)
        after = network(inputs)
    assert count == sum(len(stage.attention) for stage in network.exchanges)
    assert len(maps) == count
    for field in CLASSES:
        assert torch.equal(before[field], during[field])
        assert torch.equal(before[field], after[field])


@pytest.mark.parametrize("name", ATTENDING)
def test_rows_are_distributions_and_what_places_receive_averages_to_an_even_look(name):
    network = network_of(name)
    with torch.inference_mode(), recorded_attention(network) as maps:
        network(inputs_of(network.spec))
    for one in maps:
        torch.testing.assert_close(one.weights.sum(-1), torch.ones(one.weights.shape[:-1]))
        assert (one.weights >= 0).all()
        assert one.received.shape == (2, one.answers.layout.steps, one.answers.layout.patches)
        torch.testing.assert_close(one.received.mean(dim=(1, 2)), torch.ones(2))
        assert ((one.entropy > 0) & (one.entropy <= 1 + 1e-6)).all()
        if one.over_time is not None:
            assert one.over_time.shape == (2, one.asks.time_bins, one.answers.time_bins)
            torch.testing.assert_close(one.over_time.sum(-1), torch.ones(one.over_time.shape[:-1]))


def literal(module, target, source):
    """Attention as the formula says, one query at a time: {(step, place, head): {(step, place): weight}}."""
    query = module.query(module.target_positions(target))[0]
    key = module.key_value(module.source_positions(source)).chunk(2, dim=-1)[0][0]
    depth = query.shape[-1] // module.num_heads
    found = {}
    for step in range(query.shape[0]):
        for place in range(query.shape[1]):
            for head in range(module.num_heads):
                part = slice(head * depth, (head + 1) * depth)
                scores = {
                    (at, where): math.exp(float(query[step, place, part] @ key[at, where, part]) / math.sqrt(depth))
                    for at in range(key.shape[0])
                    for where in range(key.shape[1])
                    if (at == step or "time" in module.window.axes)
                    and (where == place or "space" in module.window.axes)
                }
                total = sum(scores.values())
                found[step, place, head] = {where: score / total for where, score in scores.items()}
    return found


@pytest.mark.parametrize(
    ("model", "direction"),
    [("cast_tiny", "temporal_to_spatial"), ("cast_tiny", "spatial_to_temporal"), ("ca2st_tiny", "audio_to_temporal")],
)
def test_weights_received_and_times_match_a_literal_reference(model, direction):
    network = network_of(model)
    module = network.exchanges[1].attention[direction]
    captured = []
    hook = module.register_forward_hook(lambda _, inputs, output: captured.append((inputs, output)))
    with torch.inference_mode(), recorded_attention(network) as maps:
        network(inputs_of(network.spec, batch=1))
        (target, source), output = captured[0]
        expected = literal(module, target, source)
        weights, again = attention_probabilities(module, target, source)
    hook.remove()
    torch.testing.assert_close(again, output, rtol=1e-5, atol=1e-5)
    (one,) = (x for x in maps if x.name == direction and x.block == 2)
    steps, places = target.shape[1:3]
    received = torch.zeros(source.shape[1:3])
    times = torch.zeros(one.asks.time_bins, one.answers.time_bins)
    asks, answers = one.asks.bin_of_token(), one.answers.bin_of_token()
    for (step, place, _), row in expected.items():
        for (at, where), weight in row.items():
            received[at, where] += weight
            times[asks[step * places + place], answers[at * source.shape[2] + where]] += weight
    received *= received.numel() / received.sum()
    torch.testing.assert_close(one.received[0], received, rtol=1e-4, atol=1e-5)
    if one.over_time is not None:
        torch.testing.assert_close(one.over_time[0], times / times.sum(-1, keepdim=True), rtol=1e-4, atol=1e-5)
    entropies = [-sum(w * math.log(w) for w in row.values()) / math.log(len(row)) for row in expected.values()]
    assert float(one.entropy[0]) == pytest.approx(sum(entropies) / len(entropies), rel=1e-4)
    assert weights.shape[2] == module.num_heads
    assert steps * places * module.num_heads == weights[0, ..., 0].numel()


@pytest.mark.parametrize("name", ["cast_tiny", "cava_tiny", "ca2st_tiny", "cast_tiny_videomae_clip"])
def test_exactly_the_exchanges_that_do_not_count_get_no_gradient(name):
    network = network_of(name)
    with recorded_attention(network) as maps:
        logits = network(inputs_of(network.spec))
    sum(scores.square().sum() for scores in logits.values()).backward()
    for one in maps:
        gradient = network.exchanges[one.block - 1].attention[one.name].query.weight.grad
        moved = gradient is not None and bool(gradient.abs().max() > 0)
        assert moved == one.counts, (one.name, one.block)
    assert not all(one.counts for one in maps)


def test_exchanges_of_late_blocks_are_recorded_with_their_block():
    network = network_of("ca2st_tiny_last1_clock")
    with torch.inference_mode(), recorded_attention(network) as maps:
        network(inputs_of(network.spec))
    blocks = {name: [one.block for one in maps] for name, maps in by_exchange(maps).items()}
    assert blocks["temporal_to_spatial"] == [1, 2, 3]
    assert blocks["audio_to_temporal"] == [3]


@pytest.mark.parametrize(
    ("name", "why"),
    [("cast_tiny_independent", "no exchange"), ("spatial_tiny", "no exchange"), ("cast_tiny_lateral", "lateral")],
)
def test_models_without_attention_between_experts_are_refused(name, why):
    with pytest.raises(UserError, match=why):
        check_attends(assemble(NAMED[name], CLASSES))


def test_a_wrong_recomputation_is_not_passed_off_as_the_models_attention(monkeypatch):
    network = network_of("cast_tiny")
    monkeypatch.setattr(
        "cast_ray.explain.attention.attention_probabilities",
        lambda module, target, source: (torch.ones(2, 1, 4, 1, 1), torch.zeros_like(target)),
    )
    with torch.inference_mode(), recorded_attention(network), pytest.raises(RuntimeError, match="defect"):
        network(inputs_of(network.spec))
    monkeypatch.undo()
    with torch.inference_mode():
        network(inputs_of(network.spec))  # the hooks are gone


def test_the_released_size_gives_maps_of_the_papers_windows():
    """Shapes of CAST-B at 224 pixels and 16 frames, on the meta device's sizes but with real numbers for one block."""
    spec = NAMED["cast_base_patch16_224"]
    with torch.device("meta"):
        network = assemble(spec, {"verb": 97, "noun": 300})
    stage = network.exchanges[0].to_empty(device="cpu")
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in stage.parameters():
            parameter.copy_(0.05 * torch.randn(parameter.shape, generator=draw))
        reduced = torch.randn(1, 8, 196, 384, generator=draw)
        time, _ = attention_probabilities(stage.attention["temporal_to_spatial"], reduced, reduced)
        space, again = attention_probabilities(stage.attention["spatial_to_temporal"], reduced, reduced)
        output = stage.attention["spatial_to_temporal"](reduced, reduced)
    assert time.shape == (1, 196, 12, 8, 8)
    assert space.shape == (1, 8, 12, 196, 196)
    torch.testing.assert_close(again, output, rtol=1e-4, atol=1e-5)
