"""AST in its authors' layout and Hugging Face's: the expert computes what transformers computes."""

from __future__ import annotations

import pytest
import torch
from transformers import ASTConfig, ASTForAudioClassification, ASTModel

from cast_ray.errors import UserError
from cast_ray.models.spec import AST, AudioInput
from cast_ray.weights.load import load_experts

SMALL = {"width": 32, "depth": 2, "num_heads": 2}
CONFIG = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}


@pytest.fixture
def audio_network(network_of):
    def build(columns=136, mel_bins=128, **changes):
        return network_of(AST(**SMALL, **changes), "audio", audio=AudioInput(mel_bins=mel_bins, frames=columns))

    return build


@pytest.mark.parametrize("memory", [False, True], ids=["folder", "state dict"])
@pytest.mark.parametrize("kind", [ASTModel, ASTForAudioClassification])
def test_hugging_face_layouts(audio_network, tokens_of, randomized, tmp_path, kind, memory):
    model = randomized(kind(ASTConfig(max_length=136, num_mel_bins=128, **CONFIG)))
    if memory:
        torch.save(model.state_dict(), tmp_path / "model.bin")
    else:
        model.save_pretrained(tmp_path)
    network = audio_network()
    (note,) = load_experts(network, {"audio": tmp_path})
    assert "AST of Hugging Face" in note
    expert = network.experts["audio"]
    bare = model if kind is ASTModel else model.audio_spectrogram_transformer
    spectrogram = torch.randn(2, 128, 136)
    with torch.no_grad():
        found = tokens_of(expert, spectrogram)
        expected = bare(spectrogram.transpose(1, 2))
        torch.testing.assert_close(expert.norm(found[:, 0]), expected.last_hidden_state)
        torch.testing.assert_close(expert.pool(found), expected.pooler_output)


@pytest.fixture
def published():
    """Tensors as in the authors' release: a distilled DeiT of timm with patches of one channel, on 128 x 1024."""
    import timm

    vit = timm.create_model(
        "deit_base_distilled_patch16_384", img_size=32, embed_dim=32, depth=2, num_heads=2, in_chans=1, num_classes=7
    )
    generator = torch.Generator().manual_seed(0)
    shapes = {f"v.{name}": x.shape for name, x in vit.state_dict().items()}
    shapes |= {"v.pos_embed": (1, 2 + 12 * 101, 32), "mlp_head.0.weight": (32,), "mlp_head.1.weight": (527, 32)}
    return {f"module.{name}": torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def test_authors_layout_with_fewer_columns(audio_network, tokens_of, published, tmp_path):
    torch.save(published, tmp_path / "audioset_10_10_0.4593.pth")
    network = audio_network(400)
    notes = load_experts(network, {"audio": tmp_path / "audioset_10_10_0.4593.pth"})
    assert "AST of its authors" in notes[0]
    assert notes[1:] == ["experts.audio.embedding.positions resized 12 x 101 -> 12 x 39"]
    expert = network.experts["audio"]
    table = published["module.v.pos_embed"][0]
    grid = table[2:].view(12, 101, 32)[:, 50 - 19 : 50 - 19 + 39]
    assert torch.equal(expert.embedding.positions, torch.cat([table[:2], grid.flatten(0, 1)]))
    assert torch.equal(expert.embedding.distillation_token, published["module.v.dist_token"][0, 0])
    block = published["module.v.blocks.1.attn.qkv.weight"]
    assert torch.equal(expert.blocks[1].attention.qkv.weight, block)


def test_release_at_its_own_size_is_not_resized(audio_network, published, tmp_path):
    torch.save(published, tmp_path / "ast.pth")
    assert len(load_experts(audio_network(1024), {"audio": tmp_path / "ast.pth"})) == 1


def test_grid_of_other_mel_bins_is_read_from_the_settings(audio_network, randomized, tmp_path):
    randomized(ASTModel(ASTConfig(max_length=136, num_mel_bins=64, **CONFIG))).save_pretrained(tmp_path)
    notes = load_experts(audio_network(96), {"audio": tmp_path})
    assert notes[1:] == ["experts.audio.embedding.positions resized 5 x 13 -> 12 x 9"]


def test_table_of_unknown_grid_is_a_matter_of_shape(audio_network, published, tmp_path):
    published["module.v.pos_embed"] = torch.randn(1, 2 + 13 * 7, 32)
    torch.save(published, tmp_path / "ast.pth")
    with pytest.raises(UserError, match=r"embedding\.positions \(93, 32\) where the model has"):
        load_experts(audio_network(400), {"audio": tmp_path / "ast.pth"})


def test_distilled_deit_is_a_starting_point(audio_network, randomized, tmp_path):
    import timm

    model = randomized(
        timm.create_model("deit_base_distilled_patch16_384", img_size=384, embed_dim=32, depth=2, num_heads=2)
    )
    torch.save(model.state_dict(), tmp_path / "deit.pth")
    network = audio_network(400)
    notes = load_experts(network, {"audio": tmp_path / "deit.pth"})
    assert notes[1:] == ["experts.audio.embedding.positions resized 24 x 24 -> 12 x 39"]
    patch = network.experts["audio"].embedding.patch.weight
    torch.testing.assert_close(patch, model.patch_embed.proj.weight.sum(1, keepdim=True))
