"""ViTs of timm, Hugging Face and Google, EVA-CLIP of open_clip: the expert computes what the foreign model computes."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch

from cast_ray.errors import UserError
from cast_ray.models.spec import TimmViT, VideoInput, ViT
from cast_ray.weights.load import load_experts

SIZE = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}


def class_tokens(expert, tokens):
    """Normed tokens [(B U), S + N, D]."""
    return expert.norm(tokens.flatten(0, 1)) if expert.norm_first else tokens.flatten(0, 1)


def test_timm_vit(network_of, sizes, tokens_of, clip, seen, randomized, tmp_path):
    foreign = randomized(timm.create_model("vit_base_patch16_224", num_classes=21843, **SIZE))
    torch.save(foreign.state_dict(), tmp_path / "vit.pth")
    network = network_of(ViT(**sizes))
    load_experts(network, {"spatial": tmp_path / "vit.pth"})
    expert = network.experts["spatial"]
    with torch.no_grad():
        torch.testing.assert_close(class_tokens(expert, tokens_of(expert, clip)), foreign.forward_features(seen))


def test_vit_at_another_image_size_is_that_of_timm(network_of, sizes, tokens_of, randomized, tmp_path):
    from timm.layers import resample_abs_pos_embed

    foreign = randomized(timm.create_model("vit_base_patch16_224", **SIZE))
    torch.save(foreign.state_dict(), tmp_path / "vit.pth")
    network = network_of(ViT(**sizes), video=VideoInput(image_size=48, num_frames=2))
    notes = load_experts(network, {"spatial": tmp_path / "vit.pth"})
    assert notes[1:] == ["experts.spatial.embedding.positions resized 4 x 4 -> 6 x 6"]
    larger = timm.create_model("vit_base_patch16_224", **{**SIZE, "img_size": 48}).eval()
    table = resample_abs_pos_embed(foreign.pos_embed, [6, 6])
    larger.load_state_dict({**foreign.state_dict(), "pos_embed": table})
    clip = torch.randn(1, 3, 2, 48, 48)
    expert = network.experts["spatial"]
    with torch.no_grad():
        expected = larger.forward_features(clip[:, :, 1])
        torch.testing.assert_close(class_tokens(expert, tokens_of(expert, clip)), expected)


@pytest.mark.parametrize("memory", [False, True], ids=["folder", "state dict"])
def test_hugging_face_vit(network_of, sizes, tokens_of, clip, seen, randomized, tmp_path, memory):
    from transformers import ViTConfig, ViTModel

    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
    model = randomized(ViTModel(ViTConfig(image_size=32, patch_size=8, layer_norm_eps=1e-6, **small)))
    if memory:
        torch.save(model.state_dict(), tmp_path / "model.bin")
    else:
        model.save_pretrained(tmp_path)
    network = network_of(ViT(**sizes))
    load_experts(network, {"spatial": tmp_path})
    expert = network.experts["spatial"]
    with torch.no_grad():
        expected = model(seen).last_hidden_state
        torch.testing.assert_close(class_tokens(expert, tokens_of(expert, clip)), expected)


def google_arrays(width=32, heads=2, depth=2, patch=8, patches=16):
    """Random arrays by the names and shapes of Google's .npz files."""
    random = np.random.default_rng(0)
    inner = width // heads
    shapes = {
        **{"cls": (1, 1, width), "embedding/kernel": (patch, patch, 3, width), "embedding/bias": (width,)},
        **{"Transformer/posembed_input/pos_embedding": (1, 1 + patches, width)},
        **{"Transformer/encoder_norm/scale": (width,), "Transformer/encoder_norm/bias": (width,)},
        **{"head/kernel": (width, 10), "head/bias": (10,)},
    }
    for i in range(depth):
        block = f"Transformer/encoderblock_{i}"
        attention, mlp = f"{block}/MultiHeadDotProductAttention_1", f"{block}/MlpBlock_3"
        for norm in ("LayerNorm_0", "LayerNorm_2"):
            shapes |= {f"{block}/{norm}/scale": (width,), f"{block}/{norm}/bias": (width,)}
        for part in ("query", "key", "value"):
            shapes |= {f"{attention}/{part}/kernel": (width, heads, inner), f"{attention}/{part}/bias": (heads, inner)}
        shapes |= {f"{attention}/out/kernel": (heads, inner, width), f"{attention}/out/bias": (width,)}
        shapes |= {f"{mlp}/Dense_0/kernel": (width, 4 * width), f"{mlp}/Dense_0/bias": (4 * width,)}
        shapes |= {f"{mlp}/Dense_1/kernel": (4 * width, width), f"{mlp}/Dense_1/bias": (width,)}
    return {name: (0.2 * random.standard_normal(shape)).astype(np.float32) for name, shape in shapes.items()}


def test_google_npz_is_read_as_timm_reads_it(network_of, sizes, tokens_of, clip, seen, tmp_path):
    path = tmp_path / "ViT-B_16_Img21.npz"
    np.savez(path, **google_arrays())
    foreign = timm.create_model("vit_base_patch16_224", num_classes=10, **SIZE).eval()
    foreign.load_pretrained(str(path))
    network = network_of(ViT(**sizes))
    (note,) = load_experts(network, {"spatial": path})
    assert "ViT of Google" in note
    expert = network.experts["spatial"]
    with torch.no_grad():
        torch.testing.assert_close(class_tokens(expert, tokens_of(expert, clip)), foreign.forward_features(seen))


def test_unknown_arrays_of_google_are_named(network_of, sizes, tmp_path):
    arrays = google_arrays()
    arrays["Transformer/encoderblock_0/Adapter_0/kernel"] = arrays.pop("Transformer/encoderblock_1/LayerNorm_2/bias")
    np.savez(tmp_path / "vit.npz", **arrays)
    message = r"1 missing: blocks\.1\.mlp_norm\.bias\n.*1 unexpected: Transformer/encoderblock_0/Adapter_0/kernel"
    with pytest.raises(UserError, match=message):
        load_experts(network_of(ViT(**sizes)), {"spatial": tmp_path / "vit.npz"})


@pytest.mark.parametrize(
    "name",
    [
        "eva02_base_patch16_clip_224",  # separate projections, norms inside attention and SwiGLU
        "eva02_base_patch14_224",  # mean of tokens, fc_norm
        "eva_giant_patch14_224",  # biases of query and value alone
        "deit3_base_patch16_224",  # LayerScale
        "vit_base_patch14_reg4_dinov2",  # register tokens, positions without the class token
        "vit_base_patch16_siglip_224",  # attention pooling
        "vit_base_patch16_clip_224",  # norm before the blocks
    ],
)
def test_any_timm_vit(network_of, sizes, tokens_of, clip, seen, randomized, tmp_path, name):
    foreign = randomized(timm.create_model(name, **SIZE))
    torch.save(foreign.state_dict(), tmp_path / "vit.pth")
    network = network_of(TimmViT(model=name, **sizes))
    load_experts(network, {"spatial": tmp_path / "vit.pth"})
    expert = network.experts["spatial"]
    with torch.no_grad():
        expected = foreign.forward_features(seen)
        torch.testing.assert_close(class_tokens(expert, tokens_of(expert, clip)), expected)


@pytest.mark.parametrize("name", ["eva02_base_patch16_clip_224", "vit_base_patch14_reg4_dinov2"])
def test_timm_positions_at_another_image_size(network_of, sizes, randomized, tmp_path, name):
    from timm.layers import resample_abs_pos_embed

    foreign = randomized(timm.create_model(name, **SIZE))
    torch.save(foreign.state_dict(), tmp_path / "vit.pth")
    network = network_of(TimmViT(model=name, **sizes), video=VideoInput(image_size=48, num_frames=2))
    notes = load_experts(network, {"spatial": tmp_path / "vit.pth"})
    assert notes[1:] == ["experts.spatial.embedding.vit.pos_embed resized 4 x 4 -> 6 x 6"]
    special = 0 if "dinov2" in name else 1
    expected = resample_abs_pos_embed(foreign.pos_embed, [6, 6], num_prefix_tokens=special)
    torch.testing.assert_close(network.experts["spatial"].embedding.vit.pos_embed, expected)


def test_eva_clip_of_open_clip(network_of, sizes, tokens_of, clip, seen, randomized, tmp_path, monkeypatch):
    from open_clip.model import CLIPTextCfg, CLIPVisionCfg, CustomTextCLIP

    name = "eva02_base_patch16_clip_224"
    create = timm.create_model
    # open_clip passes no sizes on to timm.
    monkeypatch.setattr(timm, "create_model", lambda model, **options: create(model, **{**SIZE, **options}))
    vision = CLIPVisionCfg(timm_model_name=name, timm_pool="token", timm_proj=None, image_size=32)
    text = CLIPTextCfg(context_length=8, layers=1, width=32, heads=2, vocab_size=50)
    foreign = randomized(CustomTextCLIP(16, vision, text))
    monkeypatch.undo()
    assert "visual.trunk.blocks.0.attn.q_proj.weight" in foreign.state_dict()
    torch.save(foreign.state_dict(), tmp_path / "open_clip_pytorch_model.bin")
    network = network_of(TimmViT(model=name, **sizes))
    load_experts(network, {"spatial": tmp_path})
    expert = network.experts["spatial"]
    with torch.no_grad():
        expected = foreign.visual.trunk.forward_features(seen)
        torch.testing.assert_close(class_tokens(expert, tokens_of(expert, clip)), expected)


def test_missing_and_unexpected_names_of_timm_are_ours(network_of, sizes, randomized, tmp_path):
    name = "deit3_base_patch16_224"
    states = randomized(timm.create_model(name, **SIZE)).state_dict()
    states["blocks.0.attn.relative_position"] = states.pop("blocks.1.ls2.gamma")
    torch.save(states, tmp_path / "vit.pth")
    message = r"1 missing: blocks\.1\.mlp\.scale\n.*1 unexpected: blocks\.0\.attention\.inner\.relative_position"
    with pytest.raises(UserError, match=message):
        load_experts(network_of(TimmViT(model=name, **sizes)), {"spatial": tmp_path / "vit.pth"})
