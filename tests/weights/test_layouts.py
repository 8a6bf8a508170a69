"""Which layout a file has: every one is recognised as itself, and a wrong one is called what it is."""

from __future__ import annotations

import pytest
import torch

from cast_ray.errors import UserError
from cast_ray.models.spec import AST, CLIP, TimmViT, VideoMAE, ViT
from cast_ray.weights.layouts import choose_layout, layouts_of, whole_network_of

IMAGES, TUBELETS, SOUND = (4, 3, 8, 8), (4, 3, 2, 8, 8), (4, 1, 16, 16)
VIT = {"cls_token": (1, 1, 4), "patch_embed.proj.weight": IMAGES, "blocks.0.norm1.weight": (4,)}
FILES = {
    "CLIP of OpenAI or open_clip": {"visual.conv1.weight": IMAGES, "visual.class_embedding": (4,), "logit_scale": ()},
    "CLIP of Hugging Face": {"vision_model.embeddings.patch_embedding.weight": IMAGES},
    "CLIP of timm": {**VIT, "norm_pre.weight": (4,)},
    "VideoMAE of Hugging Face": {"videomae.embeddings.patch_embeddings.projection.weight": TUBELETS},
    "VideoMAE of its authors (or fine-tuned MVD)": {"encoder.patch_embed.proj.weight": TUBELETS},
    "MVD of its authors": {"patch_embed.proj.weight": TUBELETS, "mask_token_vid": (1, 1, 4)},
    "AST of its authors": {"v.patch_embed.proj.weight": SOUND, "v.dist_token": (1, 1, 4)},
    "AST of Hugging Face": {
        "embeddings.patch_embeddings.projection.weight": SOUND,
        "embeddings.distillation_token": (1, 1, 4),
    },
    "distilled DeiT of timm": {**VIT, "dist_token": (1, 1, 4)},
    "ViT of Google in .npz": {"embedding/kernel": (8, 8, 3, 4), "Transformer/encoder_norm/scale": (4,)},
    "ViT of Hugging Face": {"vit.embeddings.patch_embeddings.projection.weight": IMAGES},
    "ViT of timm": VIT,
}
FAMILIES = {
    **dict.fromkeys(["CLIP of OpenAI or open_clip", "CLIP of Hugging Face", "CLIP of timm"], CLIP),
    **dict.fromkeys(["VideoMAE of Hugging Face", "MVD of its authors"], VideoMAE),
    **dict.fromkeys(["VideoMAE of its authors (or fine-tuned MVD)"], VideoMAE),
    **dict.fromkeys(["AST of its authors", "AST of Hugging Face", "distilled DeiT of timm"], AST),
    **dict.fromkeys(["ViT of Google in .npz", "ViT of Hugging Face", "ViT of timm"], ViT),
}
EXPERTS = [CLIP(), VideoMAE(), AST(), ViT(), TimmViT(model="vit_base_patch16_224")]


def tensors(shapes):
    return {name: torch.zeros(shape) for name, shape in shapes.items()}


@pytest.mark.parametrize("name", FILES)
def test_every_layout_is_recognised_for_its_family(name):
    found = tensors(FILES[name])
    assert layouts_of(found)[0].name == name
    assert whole_network_of(found) is None
    layout = choose_layout(found, FAMILIES[name](), where="file")
    assert layout.name == name


@pytest.mark.parametrize("expert", EXPERTS, ids=lambda expert: type(expert).__name__)
@pytest.mark.parametrize("name", FILES)
def test_files_of_other_families_are_called_what_they_are(name, expert):
    # timm's files serve several families, which is what their own tests are about.
    if isinstance(expert, FAMILIES[name]) or name in ("CLIP of timm", "distilled DeiT of timm", "ViT of timm"):
        return
    with pytest.raises(UserError) as error:
        choose_layout(tensors(FILES[name]), expert, where="some.pth for the temporal expert")
    message = str(error.value)
    assert f"some.pth for the temporal expert looks like {name}" in message
    assert f"of the family {FAMILIES[name].__name__}" in message
    assert f"this expert is of the family {type(expert).__name__}" in message


def test_timm_file_for_a_tubelet_expert_is_called_a_vit():
    with pytest.raises(UserError, match=r"looks like ViT of timm.*TimmViT or ViT.*family VideoMAE"):
        choose_layout(tensors(VIT), VideoMAE(), where="file")


@pytest.mark.parametrize(
    ("names", "what"),
    [
        (["experts.spatial.norm.weight"], "a whole network of this project"),
        (["clip_class_embedding", "patch_embed.proj.weight"], "CAST of its authors"),
    ],
)
def test_whole_networks_are_no_experts(names, what):
    found = tensors({name: TUBELETS if "patch" in name else (4,) for name in names})
    assert whole_network_of(found) == what
    for expert in EXPERTS:
        with pytest.raises(UserError, match=f"looks like {what}.*load it as the whole network"):
            choose_layout(found, expert, where="file")


def test_unknown_files_are_described():
    with pytest.raises(UserError, match=r"none of the known layouts: .*It holds 1 tensors: conv1\.weight"):
        choose_layout(tensors({"conv1.weight": (64, 3, 7, 7)}), CLIP(), where="resnet.pth")
