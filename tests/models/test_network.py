"""How experts behave inside a network, and what trains."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from cast_ray.models.cast import CastSize, build_cast
from cast_ray.models.network import Network

SIZE = CastSize(img_size=16, patch_size=8, num_frames=4, width=32, depth=2, num_heads=2)
COUNTS = {"label": 5}


@pytest.fixture
def network():
    torch.manual_seed(0)
    return build_cast(SIZE, COUNTS).eval()


@pytest.fixture
def clip():
    torch.manual_seed(1)
    return torch.randn(2, *SIZE.clip_shape)


def test_at_initialisation_both_streams_equal_the_plain_experts(network, clip):
    features = network.forward_features(clip)
    assert set(features) == {"spatial", "temporal"}
    for name, expert in network.experts.items():
        assert torch.equal(features[name], expert(clip))


def test_at_initialisation_the_spatial_stream_ignores_the_temporal_weights(network, clip):
    before = network.forward_features(clip)
    with torch.no_grad():
        for parameter in network.experts["temporal"].parameters():
            parameter.normal_()
    after = network.forward_features(clip)
    assert torch.equal(after["spatial"], before["spatial"])
    assert not torch.allclose(after["temporal"], before["temporal"])


def test_a_trained_exchange_lets_the_temporal_weights_reach_the_spatial_stream(network, clip):
    for exchange in network.exchanges:
        nn.init.normal_(exchange.expand["spatial"].weight)
    before = network.forward_features(clip)["spatial"]
    with torch.no_grad():
        for parameter in network.experts["temporal"].parameters():
            parameter.normal_()
    assert not torch.allclose(network.forward_features(clip)["spatial"], before)


def test_logits_are_keyed_by_label_field(clip):
    logits = build_cast(SIZE, {"verb": 3, "noun": 7})(clip)
    assert {field: tuple(values.shape) for field, values in logits.items()} == {"verb": (2, 3), "noun": (2, 7)}


def test_verb_is_read_from_the_temporal_and_noun_from_the_spatial_expert():
    head = build_cast(SIZE, {"verb": 3, "noun": 7}).head
    features = {"spatial": torch.randn(2, 32), "temporal": torch.randn(2, 32)}
    expected = head(features)
    without_spatial = head({**features, "spatial": torch.zeros(2, 32)})
    assert torch.equal(without_spatial["verb"], expected["verb"])
    assert not torch.equal(without_spatial["noun"], expected["noun"])


def test_frozen_experts_get_no_gradient_and_everything_else_does(network, clip):
    network.freeze()
    # Zero-initialised expansions block the gradient of what lies before them.
    for name, parameter in network.named_parameters():
        if ".expand." in name:
            nn.init.normal_(parameter, std=0.1)
    network(clip)["label"].square().sum().backward()
    with_gradient = {name for name, parameter in network.named_parameters() if parameter.grad is not None}
    assert with_gradient == set(network.trainable_names())
    frozen = {name for name, _ in network.named_parameters()} - with_gradient
    assert all(name.startswith("experts.") and "adapter" not in name for name in frozen)
    assert {"experts.spatial.norm.weight", "experts.temporal.norm.bias"} <= with_gradient


def test_freeze_can_be_undone(network):
    network.freeze()
    network.freeze(train_experts=True)
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert network.trainable_names(train_experts=True) == tuple(name for name, _ in network.named_parameters())


def test_training_from_scratch_gives_every_layer_a_gradient(clip):
    """After one step of the zero-initialised layers, all tensors of all experts learn."""
    torch.manual_seed(0)
    network = build_cast(SIZE, COUNTS)
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    for _ in range(2):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(clip)["label"], torch.tensor([0, 1])).backward()
        optimizer.step()
    optimizer.zero_grad()
    nn.functional.cross_entropy(network(clip)["label"], torch.tensor([0, 1])).backward()
    # Patches of the spatial stream are not read out, so the last exchange towards them learns nothing.
    idle = {name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0}
    assert all(name.startswith("exchanges.1.attention.temporal_to_spatial.") for name in idle)


def test_position_table_is_not_in_the_state_dict(network):
    assert set(network.state_dict()) == {name for name, _ in network.named_parameters()}


def test_depths_and_exchanges_must_agree(network):
    with pytest.raises(ValueError, match="depths"):
        Network(experts=dict(network.experts.items()), exchanges=[nn.Identity()], head=network.head)


def test_network_without_exchanges_is_the_independent_experts(network, clip):
    alone = Network(
        experts=dict(network.experts.items()), exchanges=[nn.Identity() for _ in range(2)], head=network.head
    )
    torch.testing.assert_close(alone(clip), network(clip))
