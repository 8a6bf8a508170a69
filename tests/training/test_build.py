"""From a configuration to a network: the right heads, sizes, weights and frozen parts."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from cast_ray.config import ModelConfig, WeightsConfig
from cast_ray.errors import UserError
from cast_ray.labels import LABEL, NOUN, VERB, LabelMap
from cast_ray.models.network import Network
from cast_ray.models.options import ModelOptions
from cast_ray.training.build import build_network

ACTIONS = LabelMap({LABEL: ("up", "down", "left", "right", "still")})
KITCHEN = LabelMap({VERB: ("take", "put"), NOUN: ("cup", "pan", "salt")})
TINY = ModelConfig(name="cast_tiny", num_frames=8, image_size=32, drop_path=0.0)


def build(label_map: LabelMap = ACTIONS, *, seed: int = 0, weights=WeightsConfig(), **model) -> tuple[Network, str]:  # noqa: B008
    return build_network(dataclasses.replace(TINY, **model), weights, label_map, seed=seed)


@pytest.mark.parametrize(
    ("label_map", "shapes"),
    [(ACTIONS, {LABEL: (2, 5)}), (KITCHEN, {VERB: (2, 2), NOUN: (2, 3)})],
    ids=["label", "verb and noun"],
)
def test_the_head_has_the_fields_and_classes_of_the_label_map(label_map, shapes):
    network, _ = build(label_map)
    logits = network(torch.zeros(2, 3, 8, 32, 32))
    assert {field: tuple(values.shape) for field, values in logits.items()} == shapes
    assert tuple(logits) == label_map.fields


def test_the_input_size_and_drop_path_are_those_of_the_configuration():
    network, _ = build(image_size=48, num_frames=4, drop_path=0.5)
    assert network(torch.zeros(1, 3, 4, 48, 48))[LABEL].shape == (1, 5)
    assert network.exchanges[-1].drop_path.drop_prob == pytest.approx(0.5)
    assert network.exchanges[0].drop_path.drop_prob == 0


def test_the_seed_decides_every_weight_whatever_was_drawn_before():
    first, frozen = build(KITCHEN, seed=3)
    torch.rand(17)
    again, frozen_again = build(KITCHEN, seed=3)
    other, frozen_other = build(KITCHEN, seed=4)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert frozen == frozen_again != frozen_other
    assert not all(torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))


def test_experts_are_frozen_unless_they_are_to_train():
    frozen, frozen_fingerprint = build()
    trained, trained_fingerprint = build(train_experts=True)
    trains = {name for name, parameter in frozen.named_parameters() if parameter.requires_grad}
    assert trains == set(frozen.trainable_names())
    assert not any(".attention." in name and "adapter" not in name for name in trains if name.startswith("experts."))
    assert all(parameter.requires_grad for parameter in trained.parameters())
    assert frozen_fingerprint != trained_fingerprint


def test_the_fingerprint_is_that_of_the_frozen_weights_alone():
    from cast_ray.weights.load import frozen_fingerprint

    network, fingerprint = build()
    with torch.no_grad():
        network.head.classify[LABEL].weight.add_(1)
    assert frozen_fingerprint(network) == fingerprint
    with torch.no_grad():
        next(p for p in network.parameters() if not p.requires_grad).add_(1)
    assert frozen_fingerprint(network) != fingerprint


@pytest.mark.parametrize("name", ["cast_huge", "SIZES", "resnet50", ""])
def test_an_unknown_model_is_answered_with_the_way_to_the_known_ones(name):
    with pytest.raises(UserError, match=rf"model.name is '{name}'; `cast-ray models` lists the \d+ names"):
        build(name=name)


def test_a_size_that_does_not_fit_the_model_is_refused():
    with pytest.raises(UserError, match="image size 36 is not a multiple of patch size 8"):
        build(image_size=36)


@pytest.mark.parametrize("expert", ["spatial", "temporal"])
def test_a_missing_weights_file_is_refused(expert, tmp_path):
    path = tmp_path / "nothing.safetensors"
    with pytest.raises(UserError, match=rf"{path} does not exist"):
        build(weights=WeightsConfig(**{expert: str(path)}))


def test_an_expert_that_is_to_be_random_needs_no_file():
    build(weights=WeightsConfig(spatial="random", temporal="random"))


def test_options_of_the_configuration_vary_the_model():
    network, _ = build(options=ModelOptions(exchange="lateral", adapters=False))
    names = {name for name, _ in network.named_parameters()}
    assert "exchanges.0.attention.temporal_to_spatial.project.weight" in names
    assert not any("_adapter." in name for name in names)


def test_an_option_that_does_not_fit_the_model_is_refused():
    with pytest.raises(UserError, match="audio_frames given, but the model does not have an audio expert"):
        build(options=ModelOptions(audio_frames=200))


def test_a_model_of_sound_alone_is_built_too():
    network, _ = build(name="audio_tiny")
    assert network({"audio": torch.zeros(2, *network.spec.audio.shape)})[LABEL].shape == (2, 5)


@pytest.mark.parametrize("asked", [False, True])
def test_activations_are_checkpointed_if_the_configuration_says_so(asked):
    network, _ = build(checkpoint_activations=asked)
    assert network.grad_checkpointing == asked
