"""The authors' layout of CAST: both ways, and strict."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cast_ray.errors import UserError
from cast_ray.models.assemble import assemble
from cast_ray.models.named import NAMED
from cast_ray.models.options import ModelOptions, vary
from cast_ray.models.spec import VideoInput
from cast_ray.weights.cast_author import from_author, load_author, to_author
from cast_ray.weights.load import load_network
from cast_ray.weights.resize import resize_image_grid, resize_time

GOLDEN = Path(__file__).parents[1] / "golden"
OPTIONS = ModelOptions(patch_size=8, width=32, depth=2, num_heads=2)


def cast(num_classes, *, options=OPTIONS, image_size=16, num_frames=4):
    video = VideoInput(image_size=image_size, num_frames=num_frames)
    torch.manual_seed(0)
    return assemble(replace(vary(NAMED["cast_base_patch16_224"], options), video=video), num_classes)


@pytest.fixture(params=[{"label": 5}, {"verb": 3, "noun": 4}], ids=["label", "verb+noun"])
def network(request):
    return cast(request.param)


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
    options = ModelOptions(width=96, depth=3, num_heads=4)
    with torch.device("meta"):
        counts = counts if isinstance(counts, dict) else {"label": counts}
        network = cast(counts, options=options, image_size=224, num_frames=16)
    theirs, _ = to_author(dict(network.named_parameters()))
    assert {key: list(tensor.shape) for key, tensor in theirs.items()} == {
        key: shape for key, shape, _ in golden["parameters"]
    }


def released(network, path):
    """A file as the authors release it, with random numbers; returns them under our names."""
    torch.manual_seed(1)
    ours = {name: torch.randn_like(tensor) for name, tensor in network.state_dict().items()}
    theirs, lost = to_author(ours)
    assert not lost
    optimizer = {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 1e-3, "params": [0]}]}
    arguments = argparse.Namespace(model="compo_bidir_vit_base_patch16_224", nb_classes=97, opt_betas=[0.9, 0.999])
    torch.save({"model": theirs, "optimizer": optimizer, "epoch": 49, "args": arguments}, path)
    return ours


def test_released_file_fills_the_network(network, tmp_path):
    ours = released(network, tmp_path / "cast.pth")
    (note,) = load_network(network, tmp_path / "cast.pth")
    assert note == f"CAST of its authors, from {tmp_path / 'cast.pth'}"
    assert all(torch.equal(tensor, ours[name]) for name, tensor in network.state_dict().items())


def test_other_frames_and_image_size_resize_all_tables(tmp_path):
    ours = released(cast({"label": 5}), tmp_path / "cast.pth")
    network = cast({"label": 5}, image_size=32, num_frames=8)
    notes = load_network(network, tmp_path / "cast.pth")
    # Per block: a time table of each expert and a space table of each; and the spatial expert's own table.
    assert len(notes) == 1 + 1 + 2 * 4
    assert "experts.spatial.embedding.positions resized 2 x 2 -> 4 x 4" in notes
    block = "exchanges.1.attention."
    time, space = (
        f"{block}temporal_to_spatial.source_positions.time",
        f"{block}spatial_to_temporal.target_positions.space",
    )
    assert f"{time} resized 2 -> 4 steps" in notes
    assert f"{space} resized 2 x 2 -> 4 x 4" in notes
    found = network.state_dict()
    torch.testing.assert_close(found[time], resize_time(ours[time], 4))
    torch.testing.assert_close(found[space], resize_image_grid(ours[space], (2, 2), (4, 4), special=0))
    name = "experts.spatial.embedding.positions"
    torch.testing.assert_close(found[name], resize_image_grid(ours[name], (2, 2), (4, 4), special=1))


def test_other_classes_need_the_head_to_stay(tmp_path):
    ours = released(cast({"label": 5}), tmp_path / "cast.pth")
    network = cast({"label": 7})
    before = network.head.classify.label.weight.clone()
    with pytest.raises(UserError, match=r"head\.classify\.label\.weight \(5, 32\) where the model has \(7, 32\)"):
        load_network(network, tmp_path / "cast.pth")
    notes = load_network(network, tmp_path / "cast.pth", keep_head=True)
    assert notes[-1] == "head.classify.* left as they are"
    assert torch.equal(network.head.classify.label.weight, before)
    adapter = "head.adapters.spatial.expand.weight"
    assert torch.equal(network.get_parameter(adapter), ours[adapter])


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


@pytest.mark.parametrize(
    ("theirs", "own"), [({"label": 5}, {"verb": 3, "noun": 4}), ({"verb": 3, "noun": 4}, {"label": 5})]
)
def test_other_label_fields_keep_the_whole_head(tmp_path, theirs, own):
    ours = released(cast(theirs), tmp_path / "cast.pth")
    network = cast(own)
    before = {name: x.clone() for name, x in network.state_dict().items()}
    notes = load_network(network, tmp_path / "cast.pth", keep_head=True)
    assert notes[-1] == f"head.* left as it is: the source classifies {sorted(theirs)}, this network {sorted(own)}"
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, (before if name.startswith("head.") else ours)[name]), name
