"""Every expert against an independent implementation of its family, alone and inside fresh networks.

open_clip, transformers and timm know nothing of this package. All tensors of theirs are random, none is zero; the
differences left are those of float32 rounding (`TOLERANCE`, relative to features of order one).
"""

from __future__ import annotations

from dataclasses import replace

import open_clip
import pytest
import timm
import torch
import transformers.initialization
from torch import nn
from transformers import ASTConfig, ASTModel, VideoMAEConfig, VideoMAEModel

from cast_ray.models.assemble import assemble
from cast_ray.models.named import NAMED
from cast_ray.models.spec import (
    AST,
    CLIP,
    SPATIAL,
    AudioInput,
    ExpertSpec,
    HeadSpec,
    NetworkSpec,
    TimmViT,
    VideoInput,
    VideoMAE,
    ViT,
)
from cast_ray.weights.clip import from_clip
from cast_ray.weights.hugging_face import from_hf_videomae, from_hf_vit
from cast_ray.weights.strict import load_strictly
from cast_ray.weights.timm_vit import from_timm, from_vit

TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}
SIZE = {"patch_size": 8, "width": 64, "depth": 2, "num_heads": 4}
VIDEO = VideoInput(image_size=32, num_frames=6, frames_per_step=2)
SOUND = AudioInput(mel_bins=64, frames=96)
EVA = "eva02_base_patch16_clip_224"
DINO = "vit_small_patch14_reg4_dinov2"


def load(expert, translated):
    own = {name for name, _ in expert.named_parameters() if "_adapter." not in name}
    load_strictly(expert, translated.tensors, unknown=translated.unknown, expected=own, where="test")


def alone(expert, video=VIDEO, audio=SOUND):
    """An expert with its adapters at their zero start, as part of a network of one."""
    spec = NetworkSpec(experts={"one": expert}, head=HeadSpec(adapters="no"), video=video, audio=audio)
    return assemble(spec, {"label": 2}).eval().experts["one"]


def looked_at(clip, video=VIDEO):
    """The last frame of every time step."""
    return [clip[:, :, t] for t in range(video.frames_per_step - 1, video.num_frames, video.frames_per_step)]


def open_clip_tower(spec: ExpertSpec, video: VideoInput, *, exact_gelu=False):
    return open_clip.transformer.VisionTransformer(
        image_size=video.image_size,
        patch_size=spec.patch_size,
        width=spec.width,
        layers=spec.depth,
        heads=spec.num_heads,
        mlp_ratio=4,
        output_dim=16,
        act_layer=nn.GELU if exact_gelu else open_clip.transformer.QuickGELU,
    )


def clip_feature(tower, clip, video=VIDEO):
    """Mean over frames of the class token before the final norm, which comes last."""
    post, proj = tower.ln_post, tower.proj
    tower.ln_post, tower.proj = nn.Identity(), None
    tokens = torch.stack([tower(frame) for frame in looked_at(clip, video)])
    tower.ln_post, tower.proj = post, proj
    return post(tokens.mean(0))


def their_videomae(spec: ExpertSpec, video: VideoInput):
    config = VideoMAEConfig(
        image_size=video.image_size,
        patch_size=spec.patch_size,
        num_frames=video.num_frames,
        tubelet_size=video.frames_per_step,
        hidden_size=spec.width,
        num_hidden_layers=spec.depth,
        num_attention_heads=spec.num_heads,
        intermediate_size=4 * spec.width,
        layer_norm_eps=1e-6,
        use_mean_pooling=False,
    )
    return VideoMAEModel(config)


def videomae_feature(model, clip):
    """Mean over tokens of what comes before the final norm, which comes last."""
    norm, model.layernorm = model.layernorm, nn.Identity()
    tokens = model(clip.transpose(1, 2)).last_hidden_state
    model.layernorm = norm
    return norm(tokens.mean(1))


def their_ast(spec: AST, audio: AudioInput):
    config = ASTConfig(
        hidden_size=spec.width,
        num_hidden_layers=spec.depth,
        num_attention_heads=spec.num_heads,
        intermediate_size=4 * spec.width,
        patch_size=spec.patch_size,
        frequency_stride=spec.stride,
        time_stride=spec.stride,
        max_length=audio.frames,
        num_mel_bins=audio.mel_bins,
        layer_norm_eps=1e-6,
    )
    return ASTModel(config)


def ast_feature(model, spectrogram):
    return model(spectrogram.transpose(1, 2)).pooler_output


def their_vit(name, spec: ExpertSpec, video: VideoInput):
    sizes = {"patch_size": spec.patch_size, "embed_dim": spec.width, "depth": spec.depth, "num_heads": spec.num_heads}
    return timm.create_model(name, img_size=video.image_size, num_classes=0, **sizes)


def vit_feature(vit, clip, video=VIDEO):
    """Mean over frames of what the model calls its feature."""
    return torch.stack([vit(frame) for frame in looked_at(clip, video)]).mean(0)


def check(actual, expected):
    assert expected.abs().mean() > 0.1
    torch.testing.assert_close(actual, expected, **TOLERANCE)


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_clip_equals_open_clip(activation, randomise):
    spec = CLIP(**SIZE, activation=activation)
    tower = randomise(open_clip_tower(spec, VIDEO, exact_gelu=activation == "gelu")).eval()
    expert = alone(spec)
    load(expert, from_clip({f"visual.{name}": x for name, x in tower.state_dict().items()}))
    clip = torch.randn(2, *VIDEO.shape)
    check(expert(clip), clip_feature(tower, clip))
    other = alone(replace(spec, activation={"gelu": "quick_gelu", "quick_gelu": "gelu"}[activation]))
    other.load_state_dict(expert.state_dict())
    assert not torch.allclose(other(clip), expert(clip), **TOLERANCE)


def test_videomae_equals_transformers(randomise):
    spec = VideoMAE(**SIZE)
    model = randomise(their_videomae(spec, VIDEO)).eval()
    expert = alone(spec)
    load(expert, from_hf_videomae(model.state_dict()))
    clip = torch.randn(2, *VIDEO.shape)
    check(expert(clip), videomae_feature(model, clip))


@pytest.mark.parametrize("stride", [8, 5])
def test_ast_equals_transformers(stride, randomise):
    spec = AST(**SIZE, stride=stride)
    model = randomise(their_ast(spec, SOUND)).eval()
    expert = alone(spec)
    load(expert, from_hf_vit(model.state_dict()))
    spectrogram = torch.randn(2, *SOUND.shape)
    check(expert(spectrogram), ast_feature(model, spectrogram))


def test_framewise_vit_equals_timm(randomise):
    spec = ViT(**SIZE)
    model = randomise(their_vit("vit_base_patch16_224", spec, VIDEO)).eval()
    expert = alone(spec)
    load(expert, from_vit(model.state_dict()))
    clip = torch.randn(2, *VIDEO.shape)
    check(expert(clip), vit_feature(model, clip))


TIMM = [
    "vit_base_patch16_224",  # class token
    "vit_base_patch16_clip_224",  # norm before the blocks
    DINO,  # LayerScale, registers
    "vit_base_patch16_siglip_gap_224",  # no class token: mean over patches
    "vit_base_patch16_rope_reg1_gap_256",  # the same behind a register, rotary embedding in an Eva
    EVA,  # rotary embedding, SwiGLU
    "eva02_base_patch14_448",  # mean over patches although there is a class token
    "eva_giant_patch14_clip_224",  # biases of query and value joined with zeros
    "vit_base_patch16_dinov3",  # rotary embedding alone, made for any size of frames
    "deit_base_distilled_patch16_224",  # mean of class and distillation token
]


@pytest.mark.parametrize("name", TIMM)
def test_any_plain_vit_of_timm_equals_itself(name, randomise):
    spec = TimmViT(model=name, **SIZE)
    model = randomise(their_vit(name, spec, VIDEO)).eval()
    expert = alone(spec)
    load(expert, from_timm(model.state_dict()))
    clip = torch.randn(2, *VIDEO.shape)
    if isinstance(model.fc_norm, nn.Identity):
        expected = vit_feature(model, clip)
    else:  # behind the mean over patches, and therefore behind that over frames
        norm, model.fc_norm = model.fc_norm, nn.Identity()
        expected = norm(vit_feature(model, clip))
    check(expert(clip), expected)


def test_an_expert_of_larger_patches_sees_smaller_frames(randomise):
    """Beside patches of 16 pixels on 64, patches of 14 see frames of 56 pixels: open_clip's on frames scaled down."""
    large = replace(VIDEO, image_size=64)
    spec = NetworkSpec(
        experts={
            "spatial": CLIP(**{**SIZE, "patch_size": 14}),
            "temporal": VideoMAE(**{**SIZE, "patch_size": 16}),
        },
        head=HeadSpec(adapters="no"),
        video=large,
    )
    expert = assemble(spec, {"label": 2}).eval().experts["spatial"]
    tower = randomise(open_clip_tower(expert.spec, replace(VIDEO, image_size=56))).eval()
    load(expert, from_clip({f"visual.{name}": x for name, x in tower.state_dict().items()}))
    clip = torch.randn(1, *large.shape)
    small = [nn.functional.interpolate(x, (56, 56), mode="bilinear", antialias=True) for x in clip.unbind(2)]
    expected = clip_feature(tower, torch.stack(small, 2))
    check(expert(clip), expected)
    half = expert.to(torch.bfloat16)(clip.bfloat16())
    torch.testing.assert_close(half.float(), expected, rtol=0, atol=0.1)


IN_NETWORKS = [
    *("cast_tiny", "cast_tiny_lateral", "cast_tiny_attention", "cast_tiny_attention_adapter", "cava_tiny"),
    *("ca2st_tiny", "ca2st_tiny_average", "ca2st_tiny_sequence", "ca2st_tiny_clock"),
]


@pytest.mark.parametrize("name", IN_NETWORKS)
def test_in_a_fresh_network_every_expert_equals_its_independent_model(name, randomise, inputs_for):
    network = assemble(NAMED[name], {"verb": 3, "noun": 4}).eval()
    compare_experts(network, inputs_for(network.spec), randomise)


@pytest.fixture
def full_size(monkeypatch):
    """Two threads, and a quick draw of what the tests overwrite anyway: truncated normals take minutes."""

    def quick(tensor, *_, **__):
        return nn.init.uniform_(tensor, -0.04, 0.04)

    for library in (nn.init, timm.models.vision_transformer, timm.models.eva):
        monkeypatch.setattr(library, "trunc_normal_", quick)
    monkeypatch.setitem(transformers.initialization.TORCH_INIT_FUNCTIONS, "trunc_normal_", quick)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("full_size")
def test_ca2st_of_full_size_equals_the_independent_models_at_its_start(randomise, inputs_for):
    """CLIP ViT-B/16, VideoMAE ViT-B/16 and AST-B on 4 frames of 224 pixels and 4 seconds, inside the network."""
    spec = NAMED["ca2st_base_patch16_224_last3_clock_shared"]
    network = assemble(replace(spec, video=replace(spec.video, num_frames=4)), {"verb": 97, "noun": 300}).eval()
    compare_experts(network, inputs_for(network.spec, batch=1), randomise)


@pytest.mark.usefixtures("full_size")
@torch.no_grad()
def test_videomae_of_full_size_equals_transformers_on_all_16_frames(randomise):
    spec, video = VideoMAE(adapters=False), VideoInput()
    model = randomise(their_videomae(spec, video)).eval()
    expert = alone(spec, video=video)
    load(expert, from_hf_videomae(model.state_dict()))
    clip = torch.randn(1, *video.shape)
    check(expert(clip), videomae_feature(model, clip))


@torch.no_grad()
def compare_experts(network, inputs, randomise):
    expected = {}
    for role, expert in network.experts.items():
        spec = expert.spec
        if isinstance(spec, AST):
            model = randomise(their_ast(spec, network.spec.audio)).eval()
            load(expert, from_hf_vit(model.state_dict()))
            expected[role] = ast_feature(model, inputs["audio"])
        elif isinstance(spec, VideoMAE):
            model = randomise(their_videomae(spec, network.spec.video)).eval()
            load(expert, from_hf_videomae(model.state_dict()))
            expected[role] = videomae_feature(model, inputs["video"])
        else:
            model = randomise(open_clip_tower(spec, network.spec.video)).eval()
            load(expert, from_clip({f"visual.{key}": x for key, x in model.state_dict().items()}))
            expected[role] = clip_feature(model, inputs["video"], network.spec.video)
    actual = network.forward_features(inputs)
    assert actual.keys() == expected.keys()
    for role in expected:
        check(actual[role], expected[role])


FULL = [
    (ViT(adapters=False), "vit_base_patch16_224", from_vit),
    (TimmViT(model=EVA), EVA, from_timm),
    (TimmViT(model=DINO, patch_size=14, width=384, depth=12, num_heads=6), DINO, from_timm),
]


@pytest.mark.usefixtures("full_size")
@pytest.mark.parametrize(("spec", "name", "translate"), FULL, ids=[name for _, name, _ in FULL])
@torch.no_grad()
def test_framewise_experts_of_full_size_equal_timm(spec, name, translate, randomise):
    video = VideoInput(num_frames=4, frames_per_step=2)
    model = randomise(timm.create_model(name, num_classes=0, img_size=224)).eval()
    expert = alone(spec, video=video)
    load(expert, translate(model.state_dict()))
    clip = torch.randn(1, *video.shape)
    check(expert(clip), vit_feature(model, clip, video))


@pytest.mark.parametrize("name", ["cast_tiny_eva", "cast_tiny_in21k"])
def test_cast_takes_vits_of_timm_as_spatial_expert(name, randomise):
    network = assemble(NAMED[name], {"verb": 3, "noun": 4}).eval()
    expert = network.experts[SPATIAL]
    theirs, translate = (EVA, from_timm) if isinstance(expert.spec, TimmViT) else ("vit_base_patch16_224", from_vit)
    model = randomise(their_vit(theirs, expert.spec, network.spec.video)).eval()
    load(expert, translate(model.state_dict()))
    clip = torch.randn(2, *network.spec.video.shape)
    check(network.forward_features(clip)[SPATIAL], vit_feature(model, clip, network.spec.video))
