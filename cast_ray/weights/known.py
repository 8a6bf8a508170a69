"""Which weights are known to work under which name: by role, with licence and size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cast_ray.models.spec import AUDIO, SPATIAL, TEMPORAL

__all__ = ["KNOWN", "KnownWeights", "known_weights"]


@dataclass(frozen=True, kw_only=True)
class KnownWeights:
    """One row of `cast-ray weights list`."""

    name: str
    role: str
    expert: str
    """Which expert it fills, as `--model.options.spatial` and `.temporal` take it."""
    licence: str
    megabytes: int
    """About so many are downloaded."""
    about: str


NON_COMMERCIAL = "CC BY-NC 4.0"


def _spatial() -> Iterator[tuple[str, str, str, int, str]]:
    yield "ViT-B-16/openai", "clip", "MIT", 599, "CLIP, 400 M image-text pairs; the spatial expert of CAST"
    yield "ViT-L-14/openai", "clip", "MIT", 1710, "the same, large"
    yield "ViT-L-14-336/openai", "clip", "MIT", 1711, "the same at 336 pixels; positions are resized"
    yield "openai/clip-vit-base-patch16", "clip", "MIT", 599, "as ViT-B-16/openai, in the layout of Hugging Face"
    yield "ViT-B-16/laion2b_s34b_b88k", "clip_gelu", "MIT", 599, "CLIP of open_clip, LAION-2B"
    yield "ViT-B-16/datacomp_xl_s13b_b90k", "clip_gelu", "MIT", 599, "CLIP of open_clip, DataComp-1B"
    yield "ViT-L-14/datacomp_xl_s13b_b90k", "clip_gelu", "MIT", 1710, "the same, large"
    yield "timm/vit_base_patch16_224.augreg_in21k", "vit", "Apache 2.0", 410, "ViT, ImageNet-21k; MSCA and TokenShift"
    yield "timm/vit_large_patch16_224.augreg_in21k", "vit", "Apache 2.0", 1304, "the same, large"
    yield "google/vit-base-patch16-224-in21k", "vit", "Apache 2.0", 346, "ViT, ImageNet-21k, layout of Hugging Face"
    eva = "timm/eva02_base_patch16_clip_224"
    yield "EVA02-B-16/merged2b_s8b_b131k", eva, "MIT", 599, "EVA-02 CLIP, merged 2B"
    yield f"{eva}.merged2b", eva, "MIT", 345, "the same, image tower alone"
    eva = "timm/eva02_base_patch14_224"
    yield f"{eva}.mim_in22k", eva, "MIT", 343, "EVA-02, masked image modelling, ImageNet-22k"
    dino = "timm/vit_base_patch14_dinov2"
    yield f"{dino}.lvd142m", dino, "Apache 2.0", 346, "DINOv2; positions are resized"


def _temporal() -> Iterator[tuple[str, str, str, int, str]]:
    yield "MCG-NJU/videomae-base", "videomae", NON_COMMERCIAL, 377, "VideoMAE pre-trained on Kinetics-400, 1600 epochs"
    yield "MCG-NJU/videomae-base-ssv2", "videomae", NON_COMMERCIAL, 377, "pre-trained on Something-Something-V2"
    yield "MCG-NJU/videomae-base-finetuned-kinetics", "videomae", NON_COMMERCIAL, 346, "fine-tuned on Kinetics-400"
    yield (
        "MCG-NJU/videomae-base-finetuned-ssv2",
        "videomae",
        NON_COMMERCIAL,
        346,
        "fine-tuned on Something-Something-V2",
    )
    yield "MCG-NJU/videomae-large", "videomae", NON_COMMERCIAL, 1373, "large, pre-trained on Kinetics-400"
    yield (
        "MCG-NJU/videomae-large-finetuned-kinetics",
        "videomae",
        NON_COMMERCIAL,
        1217,
        "large, fine-tuned on Kinetics-400",
    )


def _audio() -> Iterator[tuple[str, str, str, int, str]]:
    yield "MIT/ast-finetuned-audioset-10-10-0.4593", "ast", "BSD 3-Clause", 346, "AST, AudioSet, stride 10"
    yield (
        "timm/deit_base_distilled_patch16_384.fb_in1k",
        "ast",
        "Apache 2.0",
        351,
        "distilled DeiT, where AST starts from",
    )


def known_weights() -> Iterator[KnownWeights]:
    """All rows, by role."""
    for role, rows in ((SPATIAL, _spatial()), (TEMPORAL, _temporal()), (AUDIO, _audio())):
        for name, expert, licence, megabytes, about in rows:
            yield KnownWeights(name=name, role=role, expert=expert, licence=licence, megabytes=megabytes, about=about)


KNOWN: tuple[KnownWeights, ...] = tuple(known_weights())
