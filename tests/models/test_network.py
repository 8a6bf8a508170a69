"""How experts behave inside a network, what it takes, and what trains."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from cast_ray.models.assemble import assemble
from cast_ray.models.named import NAMED
from cast_ray.models.options import ModelOptions, vary
from cast_ray.models.spec import AUDIO, AUDIO_TIMES, VIDEO
from cast_ray.models.stage import Context

COUNTS = {"label": 5}
CAST = NAMED["cast_tiny"]


@pytest.fixture
def network():
    torch.manual_seed(0)
    return assemble(CAST, COUNTS).eval()


@pytest.fixture
def clip():
    torch.manual_seed(1)
    return torch.randn(2, *CAST.video.shape)


@pytest.mark.parametrize("name", ["cast_tiny", "cava_tiny", "ca2st_tiny", "ca2st_tiny_sequence", "cast_tiny_lateral"])
def test_at_initialisation_every_stream_equals_the_plain_expert(name, inputs_for):
    network = assemble(NAMED[name], COUNTS).eval()
    inputs = inputs_for(network.spec)
    features = network.forward_features(inputs)
    assert list(features) == list(network.experts)
    for role, expert in network.experts.items():
        assert torch.equal(features[role], expert(inputs[expert.modality]))


def test_at_initialisation_the_spatial_stream_ignores_the_temporal_weights(network, clip, randomise):
    before = network.forward_features(clip)
    randomise(network.experts["temporal"])
    after = network.forward_features(clip)
    assert torch.equal(after["spatial"], before["spatial"])
    assert not torch.allclose(after["temporal"], before["temporal"])


def test_a_trained_exchange_lets_the_temporal_weights_reach_the_spatial_stream(network, clip, randomise):
    randomise(network)
    before = network.forward_features(clip)["spatial"]
    randomise(network.experts["temporal"], seed=5)
    assert not torch.allclose(network.forward_features(clip)["spatial"], before)


@pytest.mark.parametrize(
    "name", ["ca2st_tiny", "ca2st_tiny_last1_clock", "cast_tiny_last2", "cast_tiny_to_spatial_only"]
)
def test_a_block_is_attention_then_exchanges_then_feed_forward(name, randomise, inputs_for):
    network = randomise(assemble(NAMED[name], COUNTS)).eval()
    inputs = inputs_for(network.spec)
    clock = {} if network.clock is None else network.clock(inputs)
    tokens = {role: expert.embed(inputs[expert.modality]) for role, expert in network.experts.items()}
    for index, stage in enumerate(network.exchanges):
        for role, expert in network.experts.items():
            tokens[role] = expert.blocks[index].attend(tokens[role])
        tokens = stage(tokens, Context(clock=clock))
        for role, expert in network.experts.items():
            tokens[role] = expert.blocks[index].feed_forward(tokens[role])
    features = network.forward_features(inputs)
    for role, expert in network.experts.items():
        torch.testing.assert_close(features[role], expert.pool(tokens[role]))


@pytest.mark.parametrize("blocks", [(1,), (2, 3), (1, 3)])
def test_exchanges_act_in_the_blocks_that_are_asked_for(blocks, randomise, clip):
    network = randomise(assemble(vary(CAST, ModelOptions(blocks=blocks)), COUNTS)).eval()
    assert [bool(list(stage.parameters())) for stage in network.exchanges] == [i in blocks for i in (1, 2, 3)]
    tokens = {role: expert.embed(clip) for role, expert in network.experts.items()}
    for index, stage in enumerate(network.exchanges, start=1):
        moved = stage(tokens, Context())
        assert all(torch.equal(moved[role], tokens[role]) != (index in blocks) for role in tokens)


def test_network_without_exchanges_is_the_independent_experts(randomise, clip):
    alone = randomise(assemble(NAMED["cast_tiny_independent"], COUNTS)).eval()
    for role, feature in alone.forward_features(clip).items():
        assert torch.equal(feature, alone.experts[role](clip))


@pytest.mark.parametrize("counts", [{"verb": 3, "noun": 7}, {"noun": 7, "verb": 3}, {"label": 5}])
@pytest.mark.parametrize("name", ["cast_tiny", "cava_tiny", "ca2st_tiny", "msca_kv_tiny", "audio_tiny"])
def test_logits_are_keyed_by_label_field(name, counts, inputs_for):
    network = assemble(NAMED[name], counts)
    logits = network(inputs_for(network.spec))
    assert [(field, tuple(x.shape)) for field, x in logits.items()] == [(f, (2, n)) for f, n in counts.items()]


def test_a_bare_tensor_is_a_video(network, clip):
    assert torch.equal(network(clip)["label"], network({VIDEO: clip})["label"])


def test_inputs_are_not_changed(randomise, inputs_for):
    network = randomise(assemble(NAMED["ca2st_tiny_clock"], COUNTS)).eval()
    inputs = inputs_for(network.spec)
    inputs["has_audio"] = torch.tensor([True, False])
    copies = {name: x.clone() for name, x in inputs.items()}
    network(inputs)
    assert inputs.keys() == copies.keys()
    assert all(torch.equal(inputs[name], copies[name]) for name in copies)


@pytest.mark.parametrize(("name", "left_out"), [("cava_tiny", AUDIO), ("cava_tiny_clock", AUDIO_TIMES)])
def test_a_missing_input_is_named(name, left_out, inputs_for):
    network = assemble(NAMED[name], COUNTS)
    inputs = inputs_for(network.spec)
    del inputs[left_out]
    with pytest.raises(ValueError, match=rf"\['{left_out}'\] are missing"):
        network(inputs)


def test_an_input_of_another_shape_is_refused(network):
    with pytest.raises(ValueError, match=r"video batch has shape \(2, 3, 8, 32, 40\)"):
        network(torch.zeros(2, 3, 8, 32, 40))


def test_frozen_experts_get_no_gradient_and_everything_else_does(network, clip, randomise):
    randomise(network).freeze()
    network(clip)["label"].square().sum().backward()
    with_gradient = {name for name, parameter in network.named_parameters() if parameter.grad is not None}
    assert with_gradient == set(network.trainable_names())
    frozen = {name for name, _ in network.named_parameters()} - with_gradient
    assert all(name.startswith("experts.") and "adapter" not in name for name in frozen)
    assert {"experts.spatial.norm.weight", "experts.temporal.norm.bias"} <= with_gradient


def test_the_norm_of_the_audio_expert_stays_frozen_beside_others_only():
    for name, tuned in (("cava_tiny", False), ("ca2st_tiny", False), ("audio_tiny", True)):
        names = assemble(NAMED[name], COUNTS).trainable_names()
        assert ("experts.audio.norm.weight" in names) == tuned


def test_freeze_can_be_undone(network):
    network.freeze()
    network.freeze(train_experts=True)
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert network.trainable_names(train_experts=True) == tuple(name for name, _ in network.named_parameters())


def test_training_from_scratch_gives_every_layer_a_gradient(clip):
    """After one step of the zero-initialised layers, all tensors of all experts learn."""
    torch.manual_seed(0)
    network = assemble(CAST, COUNTS)
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    for _ in range(2):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(clip)["label"], torch.tensor([0, 1])).backward()
        optimizer.step()
    optimizer.zero_grad()
    nn.functional.cross_entropy(network(clip)["label"], torch.tensor([0, 1])).backward()
    # Patches of the spatial stream are not read out, so the last exchange towards them learns nothing.
    idle = {name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0}
    assert all(name.startswith("exchanges.2.attention.temporal_to_spatial.") for name in idle)


def test_drop_path_grows_linearly_with_depth():
    network = assemble(replace(vary(CAST, ModelOptions(depth=4)), drop_path_rate=0.3), COUNTS)
    for index, rate in enumerate((0.0, 0.1, 0.2, 0.3)):
        assert network.exchanges[index].drop_path.drop_prob == pytest.approx(rate)
        for expert in network.experts.values():
            assert expert.blocks[index].drop_path.drop_prob == pytest.approx(rate)


def test_drop_path_acts_in_training_only(randomise, clip):
    network = randomise(assemble(replace(CAST, drop_path_rate=0.9), COUNTS))
    assert torch.equal(network.eval()(clip)["label"], network(clip)["label"])
    network.train()
    assert not torch.equal(network(clip)["label"], network(clip)["label"])


def test_tables_of_positions_and_tokens_do_not_decay():
    for name in ("ca2st_tiny", "cast_tiny_eva", "msca_kv_tiny"):
        network = assemble(NAMED[name], COUNTS)
        exempt = network.no_weight_decay()
        for parameter, values in network.named_parameters():
            if values.ndim > 1:
                table = not parameter.endswith("weight")
                assert (parameter in exempt) == table, parameter
