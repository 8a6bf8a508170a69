"""CLIP in every layout: the expert computes what the foreign visual tower computes."""

from __future__ import annotations

import json
import warnings

import pytest
import torch
from open_clip import model as open_clip
from open_clip.model import CLIPTextCfg, CLIPVisionCfg

from cast_ray.errors import UserError
from cast_ray.models.spec import CLIP, VideoInput, VideoMAE
from cast_ray.weights.load import load_experts

TEXT = CLIPTextCfg(context_length=8, layers=1, width=32, heads=2, vocab_size=50)


@pytest.fixture
def foreign(randomized):
    vision = CLIPVisionCfg(layers=2, width=32, head_width=16, patch_size=8, image_size=32)
    return randomized(open_clip.CLIP(16, vision, TEXT, quick_gelu=True))


def class_tokens(expert, tokens):
    """Normed class tokens [(B U), D]."""
    return expert.norm(tokens[:, :, 0].flatten(0, 1))


def tower(foreign, images):
    """What open_clip's visual tower gives before the projection into the joint space."""
    foreign.visual.proj = None
    with torch.no_grad():
        return foreign.visual(images)


@pytest.mark.parametrize("kind", ["state dict", "safetensors", "training checkpoint"])
def test_open_clip_file(foreign, network_of, sizes, tokens_of, clip, seen, tmp_path, kind):
    from safetensors.torch import save_file

    states = foreign.state_dict()
    path = tmp_path / ("clip.safetensors" if kind == "safetensors" else "clip.pt")
    if kind == "safetensors":
        save_file(states, path)
    else:
        wrapped = {"epoch": 3, "state_dict": {f"module.{name}": x for name, x in states.items()}}
        torch.save(states if kind == "state dict" else wrapped, path)
    network = network_of(CLIP(**sizes))
    notes = load_experts(network, {"spatial": path})
    assert notes == [
        f"experts.spatial: CLIP of OpenAI or open_clip, from {path}",
        "experts.spatial.activation not recorded; quick_gelu assumed",
    ]
    expert = network.experts["spatial"]
    with torch.no_grad():
        torch.testing.assert_close(class_tokens(expert, tokens_of(expert, clip)), tower(foreign, seen))


def test_archive_in_half_precision_as_openai_publishes_it(foreign, network_of, sizes, tokens_of, clip, seen, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        example = (torch.zeros(1, 3, 32, 32), torch.zeros(1, 8, dtype=torch.long))
        torch.jit.save(torch.jit.trace(foreign, example, check_trace=False).half(), tmp_path / "ViT-B-16.pt")
    foreign.float()
    for parameter in foreign.parameters():
        parameter.data = parameter.data.half().float()
    network = network_of(CLIP(**sizes))
    load_experts(network, {"spatial": tmp_path / "ViT-B-16.pt"})
    expert = network.experts["spatial"]
    with torch.no_grad():
        torch.testing.assert_close(class_tokens(expert, tokens_of(expert, clip)), tower(foreign, seen))


@pytest.mark.parametrize("side", [2, 4, 6])
def test_other_image_sizes_are_those_of_open_clip(foreign, network_of, sizes, tokens_of, tmp_path, randomized, side):
    from open_clip.model import resize_pos_embed

    torch.save(foreign.state_dict(), tmp_path / "clip.pt")
    size = 8 * side
    network = network_of(CLIP(**sizes), video=VideoInput(image_size=size, num_frames=2))
    notes = load_experts(network, {"spatial": tmp_path / "clip.pt"})
    resized = [f"experts.spatial.embedding.positions resized 4 x 4 -> {side} x {side}"]
    assert notes[2:] == ([] if side == 4 else resized)
    vision = CLIPVisionCfg(layers=2, width=32, head_width=16, patch_size=8, image_size=size)
    other = open_clip.CLIP(16, vision, TEXT, quick_gelu=True).eval()
    states = foreign.state_dict()
    resize_pos_embed(states, other)
    other.load_state_dict(states)
    clip = torch.randn(1, 3, 2, size, size)
    expert = network.experts["spatial"]
    with torch.no_grad():
        torch.testing.assert_close(class_tokens(expert, tokens_of(expert, clip)), tower(other, clip[:, :, 1]))


def test_timm_layout_of_clip(network_of, sizes, tokens_of, clip, seen, randomized, tmp_path):
    import timm

    size = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
    foreign = randomized(timm.create_model("vit_base_patch16_clip_quickgelu_224", num_classes=7, **size))
    torch.save(foreign.state_dict(), tmp_path / "clip.pt")
    network = network_of(CLIP(**sizes))
    assert load_experts(network, {"spatial": tmp_path / "clip.pt"})[0].startswith("experts.spatial: CLIP of timm")
    expert = network.experts["spatial"]
    with torch.no_grad():
        expected = foreign.forward_features(seen)[:, 0]
        torch.testing.assert_close(class_tokens(expert, tokens_of(expert, clip)), expected)


@pytest.mark.parametrize("whole", [False, True], ids=["CLIPVisionModel", "CLIPModel"])
def test_hugging_face_layout_of_clip(network_of, sizes, tokens_of, clip, seen, randomized, tmp_path, whole):
    from transformers import CLIPConfig, CLIPModel, CLIPVisionConfig, CLIPVisionModel

    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
    vision = CLIPVisionConfig(image_size=32, patch_size=8, **small)
    text = {"vocab_size": 50, "projection_dim": 16, **small}
    model = (
        CLIPModel(CLIPConfig(vision_config=vision.to_dict(), text_config=text)) if whole else CLIPVisionModel(vision)
    )
    randomized(model).save_pretrained(tmp_path)
    network = network_of(CLIP(**sizes))
    load_experts(network, {"spatial": tmp_path})
    expert = network.experts["spatial"]
    with torch.no_grad():
        expected = (model.vision_model if whole else model)(seen).pooler_output
        torch.testing.assert_close(class_tokens(expert, tokens_of(expert, clip)), expected)
    with pytest.raises(UserError, match=r"trained with the activation quick_gelu.*--model\.options\.spatial clip\)"):
        load_experts(network_of(CLIP(**sizes, activation="gelu")), {"spatial": tmp_path})


def test_missing_unexpected_and_misshapen_tensors_are_named(foreign, network_of, sizes, tmp_path):
    states = foreign.state_dict()
    del states["visual.ln_pre.bias"]
    states["visual.transformer.resblocks.1.ln_2.weight"] = torch.ones(7)
    states["visual.transformer.resblocks.2.ln_1.weight"] = torch.ones(32)
    states["visual.attnpool.q_proj.weight"] = torch.ones(1)
    torch.save(states, tmp_path / "clip.pt")
    network = network_of(CLIP(**sizes))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(UserError) as error:
        load_experts(network, {"spatial": tmp_path / "clip.pt"})
    message = str(error.value)
    assert "clip.pt for the spatial expert does not fit the model" in message
    assert "1 missing: embedding.norm.bias" in message
    assert "2 unexpected: blocks.2.attention_norm.weight, visual.attnpool.q_proj.weight" in message
    assert "1 of another shape: blocks.1.mlp_norm.weight (7,) where the model has (32,)" in message
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_only_the_expert_changes_and_its_adapters_do_not(foreign, sizes, tmp_path):
    from cast_ray.models.assemble import assemble
    from cast_ray.models.spec import NetworkSpec

    torch.save(foreign.state_dict(), tmp_path / "clip.pt")
    video = VideoInput(image_size=32, num_frames=4)
    spec = NetworkSpec(experts={"spatial": CLIP(**sizes), "temporal": VideoMAE(**sizes)}, video=video)
    network = assemble(spec, {"label": 5})
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    load_experts(network, {"spatial": tmp_path / "clip.pt"})
    changed = {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}
    expected = {name for name in before if name.startswith("experts.spatial.") and "_adapter." not in name}
    assert changed == expected


def config_beside(folder, settings):
    (folder / "config.json").write_text(json.dumps(settings))


@pytest.mark.parametrize(
    ("architecture", "tag", "activation"),
    [
        ("vit_base_patch16_clip_224", "laion2b", "gelu"),
        ("vit_base_patch16_clip_224", "somebody_elses", "gelu"),
        ("vit_base_patch16_clip_224", None, "gelu"),
        ("vit_base_patch16_clip_224", "openai", "quick_gelu"),  # by timm's own table
        ("vit_base_patch16_clip_quickgelu_224", "openai", "quick_gelu"),
        ("vit_base_patch16_clip_quickgelu_224", None, "quick_gelu"),
    ],
)
def test_activation_of_timm_is_in_the_name_of_the_architecture(
    network_of, sizes, randomized, tmp_path, architecture, tag, activation
):
    import timm

    size = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
    torch.save(randomized(timm.create_model("vit_base_patch16_clip_224", **size)).state_dict(), tmp_path / "clip.pt")
    config_beside(tmp_path, {"architecture": architecture, "pretrained_cfg": {"tag": tag} if tag else {}})
    assert len(load_experts(network_of(CLIP(**sizes, activation=activation)), {"spatial": tmp_path})) == 1
    other = "gelu" if activation == "quick_gelu" else "quick_gelu"
    with pytest.raises(UserError, match=f"trained with the activation {activation}, the expert has {other}"):
        load_experts(network_of(CLIP(**sizes, activation=other)), {"spatial": tmp_path})


@pytest.mark.parametrize("settings", [{"hidden_act": "gelu_new"}, {"vision_config": {"hidden_act": "gelu_new"}}])
def test_unknown_activation_is_refused(foreign, network_of, sizes, tmp_path, settings):
    torch.save(foreign.state_dict(), tmp_path / "clip.pt")
    config_beside(tmp_path, settings)
    with pytest.raises(UserError, match=r"trained with the activation gelu_new; CLIP experts have one of"):
        load_experts(network_of(CLIP(**sizes)), {"spatial": tmp_path})


@pytest.mark.parametrize("settings", [{}, {"architecture": "vit_base_patch16_224"}, {"architecture": 7}])
@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_activation_that_nobody_recorded_is_said(foreign, network_of, sizes, tmp_path, settings, activation):
    torch.save(foreign.state_dict(), tmp_path / "clip.pt")
    config_beside(tmp_path, settings)
    notes = load_experts(network_of(CLIP(**sizes, activation=activation)), {"spatial": tmp_path})
    assert notes[1:] == [f"experts.spatial.activation not recorded; {activation} assumed"]
