"""The authors' layout of CAST: both ways, and strict."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from cast_ray.errors import UserError
from cast_ray.models.cast import CastSize, build_cast
from cast_ray.weights.cast_author import from_author, load_author, to_author

GOLDEN = Path(__file__).parents[1] / "golden"
SIZE = CastSize(img_size=16, patch_size=8, num_frames=4, width=32, depth=2, num_heads=2)


@pytest.fixture(params=[{"label": 5}, {"verb": 3, "noun": 4}], ids=["label", "verb+noun"])
def network(request):
    return build_cast(SIZE, request.param)


def test_round_trip_keeps_every_tensor(network):
    ours = dict(network.state_dict())
    theirs, lost = to_author(ours)
    back, unknown = from_author(theirs)
    assert lost == unknown == []
    assert back.keys() == ours.keys()
    assert all(torch.equal(back[name], ours[name]) for name in ours)


@pytest.mark.parametrize("name", ["cast_tiny_single", "cast_tiny_verb_noun"])
def test_names_and_shapes_are_those_of_the_authors(name):
    golden = json.loads((GOLDEN / f"{name}.json").read_text())
    counts = golden["config"]["num_classes"]
    size = CastSize(width=96, depth=3, num_heads=4)
    with torch.device("meta"):
        network = build_cast(size, counts if isinstance(counts, dict) else {"label": counts})
    theirs, _ = to_author(dict(network.named_parameters()))
    assert {key: list(tensor.shape) for key, tensor in theirs.items()} == {
        key: shape for key, shape, _ in golden["parameters"]
    }


def test_loading_fills_the_network(network):
    torch.manual_seed(0)
    other = {name: torch.randn_like(tensor) for name, tensor in network.state_dict().items()}
    load_author(network, to_author(other)[0], where="file")
    assert all(torch.equal(tensor, other[name]) for name, tensor in network.state_dict().items())


def test_what_does_not_fit_is_named_and_nothing_is_loaded(network):
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    theirs, _ = to_author({name: tensor + 1 for name, tensor in before.items()})
    del theirs["blocks.1.cross_s_up.bias"]
    theirs["clip_ln_post.weight"] = torch.zeros(7)
    theirs["time_mlp.0.weight"] = torch.zeros(1)
    with pytest.raises(UserError) as error:
        load_author(network, theirs, where="some.pth")
    message = str(error.value)
    assert "some.pth" in message
    assert "1 missing: exchanges.1.expand.spatial.bias" in message
    assert "1 unexpected: time_mlp.0.weight" in message
    assert "1 of another shape: experts.spatial.norm.weight (7,) where the model has (32,)" in message
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_a_block_too_many_is_unexpected(network):
    theirs, _ = to_author(dict(network.state_dict()))
    theirs["blocks.2.norm1.weight"] = torch.zeros(32)
    with pytest.raises(UserError, match=r"1 unexpected: experts\.temporal\.blocks\.2\.attention_norm\.weight"):
        load_author(network, theirs, where="file")
