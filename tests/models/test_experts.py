"""Each expert against an independent implementation of the model family it belongs to."""

from __future__ import annotations

import math
import re

import open_clip
import pytest
import torch
from open_clip.transformer import QuickGELU, VisionTransformer
from transformers import VideoMAEConfig, VideoMAEModel

from cast_ray.models.experts.expert import ExpertSize
from cast_ray.models.experts.spatial import spatial_expert
from cast_ray.models.experts.temporal import sine_cosine_table, temporal_expert
from cast_ray.weights.clip import from_clip
from cast_ray.weights.strict import load_strictly
from cast_ray.weights.videomae import from_videomae

SIZE = ExpertSize(img_size=32, patch_size=8, num_frames=8, width=64, depth=2, num_heads=4)


def randomise(module):
    """Random values everywhere, norms and biases included, so that no tensor can be left out unseen."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.1 + (parameter.ndim == 1))
    return module


def load_foreign(expert, tensors, translate):
    ours, unknown = translate(tensors)
    own = {name for name, _ in expert.named_parameters() if "_adapter." not in name}
    load_strictly(expert, ours, unknown=unknown, expected=own, where="test")


def test_spatial_expert_equals_open_clip_tower_on_every_second_frame():
    torch.manual_seed(0)
    tower = randomise(
        VisionTransformer(
            image_size=32,
            patch_size=8,
            width=64,
            layers=2,
            heads=4,
            mlp_ratio=4,
            output_dim=16,
            act_layer=QuickGELU,
            output_tokens=True,
        )
    ).eval()
    expert = spatial_expert(SIZE).eval()
    load_foreign(expert, {f"visual.{name}": x for name, x in tower.state_dict().items()}, from_clip)
    clip = torch.randn(2, 3, 8, 32, 32)
    tokens = expert.embed(clip)
    for block in expert.blocks:
        tokens = block(tokens)
    for step, frame in enumerate(range(1, 8, 2)):
        pooled, patches = tower(clip[:, :, frame])
        torch.testing.assert_close(expert.norm(tokens[:, step, 1:]), patches, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(expert.norm(tokens[:, step, 0]) @ tower.proj, pooled, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(expert(clip), expert.norm(tokens[:, :, 0].mean(1)))


def test_spatial_names_are_those_of_a_whole_open_clip_model():
    tower = {"image_size": 32, "patch_size": 8, "width": 64, "layers": 2, "head_width": 16}
    text = {"context_length": 8, "vocab_size": 32, "width": 32, "heads": 2, "layers": 1}
    model = open_clip.CLIP(embed_dim=16, vision_cfg=tower, text_cfg=text, quick_gelu=True)
    load_foreign(spatial_expert(SIZE), model.state_dict(), from_clip)


HUGGING_FACE = (
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^encoder\.layer\.(\d+)\.layernorm_before\.", r"blocks.\1.norm1."),
    (r"^encoder\.layer\.(\d+)\.layernorm_after\.", r"blocks.\1.norm2."),
    (r"^encoder\.layer\.(\d+)\.attention\.attention\.query\.bias", r"blocks.\1.attn.q_bias"),
    (r"^encoder\.layer\.(\d+)\.attention\.attention\.value\.bias", r"blocks.\1.attn.v_bias"),
    (r"^encoder\.layer\.(\d+)\.attention\.output\.dense\.", r"blocks.\1.attn.proj."),
    (r"^encoder\.layer\.(\d+)\.intermediate\.dense\.", r"blocks.\1.mlp.fc1."),
    (r"^encoder\.layer\.(\d+)\.output\.dense\.", r"blocks.\1.mlp.fc2."),
    (r"^layernorm\.", "norm."),
)


def as_authors_wrote_it(tensors):
    """Tensors of transformers' VideoMAE in the names of VideoMAE's own files."""
    renamed = {}
    for name, tensor in tensors.items():
        new = name
        for pattern, replacement in HUGGING_FACE:
            new = re.sub(pattern, replacement, new)
        renamed[new] = tensor
    for block in range(SIZE.depth):
        parts = [
            renamed.pop(f"encoder.layer.{block}.attention.attention.{p}.weight") for p in ("query", "key", "value")
        ]
        renamed[f"blocks.{block}.attn.qkv.weight"] = torch.cat(parts)
    return renamed


def test_temporal_expert_equals_transformers_videomae():
    torch.manual_seed(0)
    config = VideoMAEConfig(
        image_size=32,
        patch_size=8,
        num_frames=8,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=256,
        layer_norm_eps=1e-6,
        use_mean_pooling=False,
    )
    model = randomise(VideoMAEModel(config)).eval()
    expert = temporal_expert(SIZE).eval()
    load_foreign(expert, as_authors_wrote_it(model.state_dict()), from_videomae)
    clip = torch.randn(2, 3, 8, 32, 32)
    tokens = expert.embed(clip)
    for block in expert.blocks:
        tokens = block(tokens)
    # Random large weights leave rounding of a few 1e-5.
    expected = model(clip.transpose(1, 2)).last_hidden_state
    torch.testing.assert_close(expert.norm(tokens).flatten(1, 2), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(expert(clip), expert.norm(tokens.mean((1, 2))))


def test_position_table_is_sine_and_cosine_in_turn():
    table = sine_cosine_table(7, 6)
    for position in range(7):
        for pair in range(3):
            angle = position / 10000 ** (2 * pair / 6)
            assert table[position, 2 * pair].item() == pytest.approx(math.sin(angle), abs=1e-6)
            assert table[position, 2 * pair + 1].item() == pytest.approx(math.cos(angle), abs=1e-6)


@pytest.mark.parametrize("make", [spatial_expert, temporal_expert])
def test_tokens_have_the_shape_that_the_layout_promises(make):
    expert = make(SIZE)
    layout = expert.layout
    tokens = expert.embed(torch.randn(3, *SIZE.clip_shape))
    assert tokens.shape == (3, layout.steps, layout.special + layout.patches, SIZE.width)
    assert expert(torch.randn(3, *SIZE.clip_shape)).shape == (3, SIZE.width)


@pytest.mark.parametrize("make", [spatial_expert, temporal_expert])
def test_clip_of_another_shape_is_refused(make):
    with pytest.raises(ValueError, match=r"\(1, 3, 6, 32, 32\)"):
        make(SIZE).embed(torch.zeros(1, 3, 6, 32, 32))


@pytest.mark.parametrize("make", [spatial_expert, temporal_expert])
def test_an_adapter_that_has_learnt_changes_the_feature(make):
    expert = make(SIZE)
    clip = torch.randn(1, *SIZE.clip_shape)
    before = expert(clip)
    for name in ("attention_adapter", "mlp_adapter"):
        torch.nn.init.normal_(getattr(expert.blocks[0], name).expand.weight)
        after = expert(clip)
        assert not torch.allclose(before, after)
        before = after
