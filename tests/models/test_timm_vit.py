"""Experts made of timm's modules in training: half precision as DeepSpeed casts it, and positions that stay put.

That they compute what timm does is shown in test_independent.py.
"""

from __future__ import annotations

import pytest
import timm
import torch

from cast_ray.models.assemble import assemble
from cast_ray.models.spec import HeadSpec, NetworkSpec, TimmViT, VideoInput

VIDEO = VideoInput(image_size=32, num_frames=4, frames_per_step=2)
EVA_CLIP, DINO = "eva_giant_patch14_clip_224", "vit_base_patch16_dinov3"


@pytest.fixture
def expert_of(randomise):
    """An expert in training mode, with random weights."""

    def make(model):
        expert = TimmViT(model=model, patch_size=8, width=64, depth=2, num_heads=4)
        spec = NetworkSpec(experts={"one": expert}, head=HeadSpec(adapters="no"), video=VIDEO)
        return randomise(assemble(spec, {"label": 2})).train().experts["one"]

    return make


@pytest.fixture
def clip():
    torch.manual_seed(0)
    return torch.randn(2, *VIDEO.shape)


def cast_parameters(expert, dtype=torch.bfloat16):
    """As DeepSpeed does: buffers keep their type."""
    for parameter in expert.parameters():
        parameter.data = parameter.data.to(dtype)


@pytest.mark.parametrize(
    "model",
    ["vit_base_patch16_rope_reg1_gap_256", "eva02_tiny_patch14_224", EVA_CLIP, DINO, "vit_base_patch16_dinov3_qkvb"],
)
def test_it_trains_if_parameters_alone_are_cast_to_bf16(model, expert_of, clip):
    expert = expert_of(model)
    expected = expert(clip)
    cast_parameters(expert)
    actual = expert(clip.bfloat16())
    assert actual.dtype == torch.bfloat16
    torch.testing.assert_close(actual.float(), expected, rtol=0, atol=0.05 * expected.abs().max().item())
    actual.sum().backward()
    assert all(
        parameter.grad.dtype == torch.bfloat16 for parameter in expert.parameters() if parameter.grad is not None
    )


def test_it_can_be_cast_back(expert_of, clip):
    expert = expert_of(EVA_CLIP)
    for dtype in (torch.bfloat16, torch.float32):
        cast_parameters(expert, dtype)
        assert expert(clip.to(dtype)).dtype == dtype


@pytest.mark.parametrize("model", [EVA_CLIP, DINO])
def test_cast_parameters_compile_as_one_graph(model, expert_of, clip):
    expert = expert_of(model)
    cast_parameters(expert)
    torch._dynamo.reset()
    actual = torch.compile(expert, backend="aot_eager", fullgraph=True)(clip.bfloat16())
    torch.testing.assert_close(actual, expert(clip.bfloat16()), rtol=0.02, atol=0.02)
    torch._dynamo.reset()


def test_rotary_positions_are_not_drawn_anew_in_training(monkeypatch, expert_of, clip):
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda *args, **options: create(*args, rope_rescale_coords=2, **options))
    expert = expert_of(DINO)
    torch.testing.assert_close(expert(clip), expert.eval()(clip))
