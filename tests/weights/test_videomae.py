"""VideoMAE and MVD in their authors' layouts and Hugging Face's: the expert computes what transformers computes."""

from __future__ import annotations

import argparse

import pytest
import torch
from transformers import (
    VideoMAEConfig,
    VideoMAEForPreTraining,
    VideoMAEForVideoClassification,
    VideoMAEModel,
)

from cast_ray.errors import UserError
from cast_ray.models.spec import VideoInput, VideoMAE
from cast_ray.weights.load import load_experts
from cast_ray.weights.videomae import KEY_MAP

CONFIG = {
    **{"image_size": 32, "patch_size": 8, "num_frames": 4, "hidden_size": 32, "num_hidden_layers": 2},
    **{"num_attention_heads": 2, "intermediate_size": 128, "decoder_num_hidden_layers": 1, "decoder_hidden_size": 16},
    **{"decoder_num_attention_heads": 2, "decoder_intermediate_size": 32},
}
# The library computes its fixed table once more in float64 and keeps it in float32.
TOLERANCE = {"atol": 2e-5, "rtol": 2e-5}


def config(**changes):
    return VideoMAEConfig(**CONFIG, **changes)


@pytest.mark.parametrize("memory", [False, True], ids=["folder", "state dict"])
@pytest.mark.parametrize("kind", [VideoMAEModel, VideoMAEForPreTraining, VideoMAEForVideoClassification])
def test_hugging_face_layouts(network_of, sizes, tokens_of, clip, randomized, tmp_path, kind, memory):
    settings = config(num_labels=5, use_mean_pooling=kind is VideoMAEForVideoClassification)
    model = randomized(kind(settings))
    if memory:
        torch.save(model.state_dict(), tmp_path / "model.bin")
    else:
        model.save_pretrained(tmp_path)
    network = network_of(VideoMAE(**sizes), "temporal")
    load_experts(network, {"temporal": tmp_path})
    expert = network.experts["temporal"]
    bare = model if kind is VideoMAEModel else model.videomae
    norm = model.fc_norm if kind is VideoMAEForVideoClassification else bare.layernorm
    bare.layernorm = None  # that of our expert comes behind the pooling
    with torch.no_grad():
        found = tokens_of(expert, clip)
        expected = bare(clip.transpose(1, 2)).last_hidden_state
        torch.testing.assert_close(found.flatten(1, 2), expected, **TOLERANCE)
        torch.testing.assert_close(expert.pool(found), norm(expected.mean(1)), **TOLERANCE)


@pytest.fixture
def ours(network_of, sizes):
    """Random tensors for a VideoMAE expert, by our names."""
    expert = network_of(VideoMAE(**sizes), "temporal").experts["temporal"]
    return {name: torch.randn_like(x) for name, x in expert.named_parameters() if "_adapter." not in name}


def in_authors_layout(ours, *, norm, prefix=""):
    theirs, lost = KEY_MAP.to_foreign(ours)
    assert not lost
    return {prefix + name.replace("fc_norm.", f"{norm}."): tensor for name, tensor in theirs.items()}


PRETRAINING = {
    **{"encoder_to_decoder.weight": (16, 32), "mask_token": (1, 1, 16), "decoder.blocks.0.norm1.weight": (16,)},
    **{"decoder.blocks.0.attn.q_bias": (16,), "decoder.norm.weight": (16,), "decoder.head.weight": (96, 16)},
}
FINE_TUNED = {"head.weight": (5, 32), "head.bias": (5,)}
MVD_PRETRAINING = {
    **{f"mask_token_{x}": (1, 1, 32) for x in ("img", "vid")},
    **{f"pos_embed_{x}": (1, 32, 32) for x in ("img", "vid")},
    **{f"down_{x}.weight": (32, 32) for x in ("img", "vid")},
    **{f"decoder_{x}.blocks.0.norm1.weight": (32,) for x in ("img", "vid")},
    **{f"decoder_{x}.head.weight": (8, 32) for x in ("img", "vid")},
}


@pytest.mark.parametrize("wrapper", ["model", "module"])
@pytest.mark.parametrize(
    ("norm", "prefix", "beside", "layout"),
    [
        ("norm", "encoder.", PRETRAINING, "VideoMAE of its authors"),
        ("fc_norm", "", FINE_TUNED, "VideoMAE of its authors"),
        ("fc_norm", "backbone.", {}, "VideoMAE of its authors"),
        ("norm", "", MVD_PRETRAINING, "MVD of its authors"),
    ],
    ids=["pre-trained", "fine-tuned", "backbone", "MVD pre-trained"],
)
def test_authors_layouts(network_of, sizes, ours, tmp_path, norm, prefix, beside, layout, wrapper):
    theirs = in_authors_layout(ours, norm=norm, prefix=prefix)
    content = {wrapper: {**theirs, **{name: torch.randn(shape) for name, shape in beside.items()}}}
    arguments = argparse.Namespace(model="pretrain_videomae_base_patch16_224", lr=1e-3)
    torch.save({**content, "optimizer": {"state": {}}, "epoch": 799, "args": arguments}, tmp_path / "mae.pth")
    positions = "axes" if layout.startswith("MVD") else "sequence"
    network = network_of(VideoMAE(**sizes, positions=positions), "temporal")
    (note,) = load_experts(network, {"temporal": tmp_path / "mae.pth"})
    assert layout in note
    for name, tensor in ours.items():
        assert torch.equal(network.experts["temporal"].get_parameter(name), tensor), name


def test_mvd_is_refused_by_an_expert_with_positions_of_videomae(network_of, sizes, ours, tmp_path):
    theirs = in_authors_layout(ours, norm="norm")
    beside = {name: torch.randn(shape) for name, shape in MVD_PRETRAINING.items()}
    torch.save({"model": {**theirs, **beside}}, tmp_path / "mvd.pth")
    with pytest.raises(UserError, match=r"is MVD, .*choose the expert 'mvd'.*--model.options.temporal mvd"):
        load_experts(network_of(VideoMAE(**sizes), "temporal"), {"temporal": tmp_path / "mvd.pth"})


def test_any_number_of_frames_fits(network_of, sizes, ours, tmp_path):
    torch.save({"model": in_authors_layout(ours, norm="norm")}, tmp_path / "mae.pth")
    network = network_of(VideoMAE(**sizes), "temporal", video=VideoInput(image_size=48, num_frames=8))
    assert len(load_experts(network, {"temporal": tmp_path / "mae.pth"})) == 1


def test_fixed_positions_that_differ_are_refused(network_of, sizes, ours, tmp_path):
    network = network_of(VideoMAE(**sizes), "temporal")
    table = network.experts["temporal"].embedding.positions.flatten(0, 1)[None]
    theirs = in_authors_layout(ours, norm="norm")
    torch.save({"model": {**theirs, "pos_embed": table + 1e-5}}, tmp_path / "mae.pth")
    load_experts(network, {"temporal": tmp_path / "mae.pth"})
    torch.save({"model": {**theirs, "pos_embed": table.flip(2)}}, tmp_path / "mae.pth")
    with pytest.raises(UserError, match=r"trained with other fixed positions.*MVD"):
        load_experts(network, {"temporal": tmp_path / "mae.pth"})


def test_final_norm_starts_as_identity_on_request(network_of, sizes, ours, tmp_path):
    torch.save({"model": in_authors_layout(ours, norm="fc_norm")}, tmp_path / "mae.pth")
    network = network_of(VideoMAE(**sizes), "temporal")
    notes = load_experts(network, {"temporal": tmp_path / "mae.pth"}, final_norm="identity")
    assert "experts.temporal.norm starts as identity" in notes
    norm = network.experts["temporal"].norm
    assert torch.equal(norm.weight, torch.ones(32))
    assert torch.equal(norm.bias, torch.zeros(32))


def test_file_without_final_norm_says_how_to_load_it(network_of, sizes, randomized, tmp_path):
    randomized(VideoMAEModel(config(use_mean_pooling=True))).save_pretrained(tmp_path)
    network = network_of(VideoMAE(**sizes), "temporal")
    with pytest.raises(UserError, match=r"2 missing: norm\.bias, norm\.weight"):
        load_experts(network, {"temporal": tmp_path})
    load_experts(network, {"temporal": tmp_path}, final_norm="identity")


@pytest.mark.parametrize("layout", ["authors", "Hugging Face"])
def test_classifier_is_copied_on_request_where_it_fits(network_of, sizes, ours, randomized, tmp_path, layout):
    head = {"weight": torch.randn(5, 32), "bias": torch.randn(5)}
    path = tmp_path
    if layout == "authors":
        path = tmp_path / "mae.pth"
        theirs = in_authors_layout(ours, norm="fc_norm")
        torch.save({"model": {**theirs, **{f"head.{name}": x for name, x in head.items()}}}, path)
    else:
        model = randomized(VideoMAEForVideoClassification(config(num_labels=5)))
        head = model.classifier.state_dict()
        model.save_pretrained(path)
    network = network_of(VideoMAE(**sizes), "temporal")
    before = {name: x.clone() for name, x in network.head.state_dict().items()}
    load_experts(network, {"temporal": path})
    assert all(torch.equal(x, before[name]) for name, x in network.head.state_dict().items())
    notes = load_experts(network, {"temporal": path}, copy_head=True)
    assert notes[-1] == "head.classify.label.* copied from the file"
    assert all(torch.equal(network.head.classify.label.get_parameter(name), x) for name, x in head.items())


def test_classifier_for_other_classes_is_not_copied(network_of, sizes, ours, tmp_path):
    theirs = in_authors_layout(ours, norm="fc_norm")
    torch.save(
        {"model": {**theirs, "head.weight": torch.ones(7, 32), "head.bias": torch.ones(7)}}, tmp_path / "mae.pth"
    )
    network = network_of(VideoMAE(**sizes), "temporal")
    notes = load_experts(network, {"temporal": tmp_path / "mae.pth"}, copy_head=True)
    assert "not copied" in notes[-1]
    assert not torch.equal(network.head.classify.label.bias, torch.ones(5))


def test_two_final_norms_are_ambiguous(network_of, sizes, ours, tmp_path):
    theirs = in_authors_layout(ours, norm="norm")
    torch.save({**theirs, "fc_norm.weight": torch.ones(32)}, tmp_path / "mae.pth")
    with pytest.raises(UserError, match=r"both 'norm\.weight' and 'fc_norm\.weight'"):
        load_experts(network_of(VideoMAE(**sizes), "temporal"), {"temporal": tmp_path / "mae.pth"})


def test_files_of_gated_blocks_do_not_fit(network_of, sizes, ours, tmp_path):
    theirs = in_authors_layout(ours, norm="norm")
    torch.save({**theirs, "blocks.0.gamma_1": torch.ones(32)}, tmp_path / "mae.pth")
    with pytest.raises(UserError, match=r"1 unexpected: blocks\.0\.gamma_1"):
        load_experts(network_of(VideoMAE(**sizes), "temporal"), {"temporal": tmp_path / "mae.pth"})


def test_with_two_video_experts_the_classifier_is_that_of_the_temporal_one(sizes, ours, tmp_path):
    from cast_ray.models.assemble import assemble
    from cast_ray.models.spec import HeadSpec, NetworkSpec

    heads = {role: {"head.weight": torch.randn(5, 32), "head.bias": torch.randn(5)} for role in ("temporal", "spatial")}
    for role, head in heads.items():
        torch.save({"model": {**in_authors_layout(ours, norm="fc_norm"), **head}}, tmp_path / f"{role}.pth")
    experts = dict.fromkeys(heads, VideoMAE(**sizes))
    video = VideoInput(image_size=32, num_frames=4)
    network = assemble(NetworkSpec(experts=experts, head=HeadSpec(adapters="no"), video=video), {"label": 5})
    notes = load_experts(network, {role: tmp_path / f"{role}.pth" for role in heads}, copy_head=True)
    assert sum("copied" in note for note in notes) == 1
    assert torch.equal(network.head.classify.label.weight, heads["temporal"]["head.weight"])
