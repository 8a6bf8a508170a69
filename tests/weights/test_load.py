"""Whole networks, several experts at once, and the fingerprint of what is frozen."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from cast_ray.data.order import Position
from cast_ray.errors import UserError
from cast_ray.labels import LABEL, LabelMap
from cast_ray.models.assemble import assemble
from cast_ray.models.named import NAMED
from cast_ray.models.spec import AudioInput, Shift
from cast_ray.recipes.toy import toy
from cast_ray.training.checkpoint import CheckpointState, write_checkpoint
from cast_ray.weights.clip import KEY_MAP as CLIP
from cast_ray.weights.load import frozen_fingerprint, load_experts, load_network
from cast_ray.weights.videomae import KEY_MAP as VIDEOMAE


def tiny(name="cast_tiny", *, classes=5, seed=0, image_size=16, num_frames=4):
    spec = NAMED[name]
    video = replace(spec.video, image_size=image_size, num_frames=num_frames)
    torch.manual_seed(seed)
    return assemble(replace(spec, video=video), {LABEL: classes})


@pytest.fixture
def network():
    return tiny()


@pytest.fixture
def expert_files(network, tmp_path):
    """Random weights of both experts of CAST in foreign layouts, by role; and the same by our names."""
    files, tensors = {}, {}
    for role, key_map in (("spatial", CLIP), ("temporal", VIDEOMAE)):
        ours = {
            name: torch.randn_like(x) for name, x in network.experts[role].named_parameters() if "_adapter." not in name
        }
        files[role] = str(tmp_path / f"{role}.pth")
        torch.save(key_map.to_foreign(ours)[0], files[role])
        tensors |= {f"experts.{role}.{name}": x for name, x in ours.items()}
    return files, tensors


def states(network):
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_several_experts_are_filled_and_nothing_else(network, expert_files):
    files, tensors = expert_files
    before = states(network)
    notes = load_experts(network, files)
    assert [note.split(",")[0] for note in notes] == [
        "experts.spatial: CLIP of OpenAI or open_clip",
        "experts.spatial.activation not recorded; quick_gelu assumed",
        "experts.temporal: VideoMAE of its authors (or fine-tuned MVD)",
    ]
    assert equal(states(network), {**before, **tensors})


def test_expert_that_the_model_does_not_have_is_named(network, expert_files):
    with pytest.raises(UserError, match=r"for the expert 'audio', but the model has \['spatial', 'temporal'\]"):
        load_experts(network, {"audio": expert_files[0]["spatial"]})


def test_experts_in_each_others_place_are_called_what_they_are(network, expert_files):
    with pytest.raises(UserError, match=r"spatial\.pth for the temporal expert looks like CLIP"):
        load_experts(network, {"temporal": expert_files[0]["spatial"]})


@pytest.mark.parametrize("name", ["cast_tiny", "cava_tiny_clock", "ca2st_tiny", "msca_kv_tiny"])
@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_own_state_dict_fills_the_network(tmp_path, name, suffix):
    source = tiny(name, seed=1, image_size=32, num_frames=8)
    path = tmp_path / f"own.{suffix}"
    (save_file if suffix == "safetensors" else torch.save)(source.state_dict(), path)
    network = tiny(name, seed=2, image_size=32, num_frames=8)
    assert load_network(network, path) == [f"a whole network of this project, from {path}"]
    assert equal(states(network), states(source))


def test_own_state_dict_of_other_sizes_is_resized(tmp_path):
    source = tiny("ca2st_tiny", image_size=16, num_frames=4)
    torch.save(source.state_dict(), tmp_path / "own.pt")
    network = tiny("ca2st_tiny", image_size=32, num_frames=8)
    notes = load_network(network, tmp_path / "own.pt")[1:]
    assert all(" resized " in note for note in notes)
    changed = {name for name, x in source.state_dict().items() if x.shape != network.state_dict()[name].shape}
    assert {note.split(" ")[0] for note in notes} == changed
    assert any("audio_to_temporal" in name for name in changed)


def test_single_expert_is_no_whole_network(network, expert_files):
    with pytest.raises(UserError, match=r"spatial\.pth looks like CLIP.*not like a whole network"):
        load_network(network, expert_files[0]["spatial"])


@pytest.fixture
def checkpoint(tmp_path, network, expert_files):
    """The folder of a training run's checkpoint, and the weights that the run had."""
    load_experts(network, expert_files[0])
    return run_checkpoint(tmp_path / "step-7", network, expert_files[0]), states(network)


def run_checkpoint(folder, network, weights, *, train_experts=False, model=None):
    network.freeze(train_experts)
    trained = {name: p.detach() + 0.0 for name, p in network.named_parameters() if p.requires_grad}
    config = toy().to_dict()
    state = CheckpointState(
        position=Position(epoch=1, step=0),
        config={
            **config,
            "model": {**config["model"], **(model or {})},
            "weights": {**config["weights"], **weights},
        },
        label_map=LabelMap({LABEL: tuple("abcde")}),
        dataset="0123456789abcdef",
        frozen=frozen_fingerprint(network),
        validation={},
    )
    folder.mkdir()
    moments = {name: tensor + 1 for name, tensor in trained.items()}
    write_checkpoint(folder, state, {"weights": trained, "exp_avg": moments}, [])
    return folder


def test_checkpoint_of_a_run_brings_its_experts_along(checkpoint):
    folder, expected = checkpoint
    other = tiny(seed=9)
    notes = load_network(other, folder)
    assert "trained tensors" in notes[0]
    assert equal(states(other), expected)


def test_checkpoint_of_a_run_for_other_classes_and_sizes(checkpoint):
    folder, expected = checkpoint
    other = tiny(seed=9, classes=7, image_size=32, num_frames=8)
    notes = load_network(other, folder, keep_head=True)
    assert any("positions resized 2 x 2 -> 4 x 4" in note for note in notes)
    name = "exchanges.2.reduce.spatial.linear.weight"
    assert torch.equal(other.get_parameter(name), expected[name])
    assert other.head.classify.label.weight.shape[0] == 7


def test_checkpoint_on_other_frozen_weights_is_refused(checkpoint, expert_files):
    folder, _ = checkpoint
    path = expert_files[0]["temporal"]
    tensors = torch.load(path)
    tensors["blocks.0.norm1.bias"] += 1
    torch.save(tensors, path)
    with pytest.raises(UserError, match="trained on frozen experts with the fingerprint"):
        load_network(tiny(), folder)


def test_checkpoint_on_random_frozen_experts_cannot_be_rebuilt(tmp_path, network):
    folder = run_checkpoint(tmp_path / "step-7", network, {"spatial": "random", "temporal": "random"})
    with pytest.raises(UserError, match=r"frozen experts come from.*random"):
        load_network(tiny(), folder)


def test_checkpoint_with_trained_experts_needs_no_others(tmp_path, network):
    folder = run_checkpoint(tmp_path / "step-7", network, {"spatial": "random"}, train_experts=True)
    other = tiny(seed=9)
    load_network(other, folder)
    assert equal(states(other), states(network))


def test_checkpoint_of_another_model_is_named(checkpoint):
    with pytest.raises(UserError):
        load_network(tiny("spatial_tiny"), checkpoint[0])


def test_fingerprint_follows_frozen_weights_and_nothing_else(network):
    network.freeze()
    first = frozen_fingerprint(network)
    with torch.no_grad():
        network.get_parameter("head.classify.label.weight").add_(1)
    assert frozen_fingerprint(network) == first
    with torch.no_grad():
        network.get_parameter("experts.spatial.blocks.0.mlp.fc1.weight")[0, 0] += 1e-3
    assert frozen_fingerprint(network) != first
    # Half-precision weights have a fingerprint of their own.
    half = frozen_fingerprint(network.bfloat16())
    assert len(half) == 64
    assert half != first


OTHERS = {
    "cast_tiny_no_positions": r"exchanges\.1\.positions is 'learned' there and 'none' here",
    "cast_tiny_mvd": r"experts\.temporal\.positions is 'sequence' there and 'axes' here",
    "cast_tiny_clip_clip": r"experts\.temporal is VideoMAE there and CLIP here",
    "cast_tiny_last1": r"exchanges\.1\.blocks is None there and \(3,\) here",
    "cast_tiny_independent": r"exchanges is 1 of them there and \(\) here",
    "cast_tiny_lateral": r"exchanges\.1\.kind is 'bottleneck' there and 'lateral' here",
    "cast_tiny_space_windows": r"exchanges\.1\.directions\.1\.window is 'time' there and 'space' here",
    "cast_tiny_late_concat": r"head\.fusion is 'sum' there and 'concat' here",
    "spatial_tiny": r"experts is \['spatial', 'temporal'\] there and \['spatial'\] here",
}


@pytest.mark.parametrize("name", OTHERS)
def test_checkpoint_of_another_model_is_told_by_its_configuration(checkpoint, name):
    other = tiny(name)
    before = states(other)
    with pytest.raises(UserError, match=OTHERS[name]):
        load_network(other, checkpoint[0])
    assert equal(states(other), before)


@pytest.mark.parametrize(
    ("name", "change", "what"),
    [
        ("cast_tiny", {"activation": "gelu"}, r"\.activation is 'quick_gelu' there and 'gelu' here"),
        ("msca_kv_tiny", {"shift": Shift(of="qkv", ratio=0.25)}, r"\.shift\.of is 'kv' there and 'qkv' here"),
        ("msca_kv_tiny", {"shift": None}, r"\.shift is Shift there and None here"),
        ("cast_tiny", {"num_heads": 2}, r"\.num_heads is 4 there and 2 here"),
    ],
)
def test_expert_that_differs_in_no_shape_is_told(tmp_path, name, change, what):
    source = tiny(name)
    folder = run_checkpoint(tmp_path / "step-7", source, {}, train_experts=True, model={"name": name})
    load_network(tiny(name, seed=9), folder)
    expert = replace(source.spec.experts["spatial"], **change)
    other = assemble(replace(source.spec, experts={**source.spec.experts, "spatial": expert}), {LABEL: 5})
    with pytest.raises(UserError, match=rf"experts\.spatial{what}"):
        load_network(other, folder)


def test_drop_path_and_sizes_make_no_other_model(checkpoint):
    spec = tiny(image_size=32, num_frames=8).spec
    other = assemble(replace(spec, drop_path_rate=0.5), {LABEL: 5})
    assert any(" resized " in note for note in load_network(other, checkpoint[0]))


def test_checkpoint_for_other_label_fields_keeps_the_new_head(checkpoint):
    folder, expected = checkpoint
    other = assemble(tiny().spec, {"verb": 3, "noun": 4})
    with pytest.raises(UserError, match=r"tensors are missing \['head\.classify\..*--weights\.new-head"):
        load_network(other, folder)
    before = states(other)
    notes = load_network(other, folder, keep_head=True)
    assert "head.* left as it is: the source classifies ['label'], this network ['noun', 'verb']" in notes
    for name, tensor in states(other).items():
        assert torch.equal(tensor, (before if name.startswith("head.") else expected)[name]), name


def test_own_tables_of_few_mel_bins_are_read_by_the_rows_of_the_expert():
    from cast_ray.weights.fit import fit_network

    def sound(frames):
        return assemble(replace(NAMED["cava_tiny"], audio=AudioInput(mel_bins=64, frames=frames)), {LABEL: 5})

    source, network = sound(264), sound(400)
    fitted, notes = fit_network(network, source.state_dict())
    # In a published table 64 patches would be 8 x 8.
    assert "experts.audio.embedding.positions resized 4 x 16 -> 4 x 25" in notes
    assert any(note.startswith("exchanges.") for note in notes)
    assert all(note.endswith("resized 4 x 16 -> 4 x 25") for note in notes)
    assert {name: x.shape for name, x in fitted.items()} == {n: x.shape for n, x in network.state_dict().items()}
