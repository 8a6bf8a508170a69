"""Which models have a name, and what each of them is made of.

Torch-free, like `cast_ray.models.spec`. `cast_ray.models.zoo` offers the same names to `timm.create_model`.
Sources: CAST (arXiv 2311.18825), CA2ST (its successor with sound), MSCA and TokenShift (see `Shift`).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from cast_ray.errors import UserError
from cast_ray.labels import NOUN, VERB
from cast_ray.models.options import ModelOptions, vary
from cast_ray.models.spec import (
    AST,
    AUDIO,
    CLIP,
    SPATIAL,
    TEMPORAL,
    AudioInput,
    Direction,
    ExchangeSpec,
    ExpertSpec,
    HeadSpec,
    NetworkSpec,
    Shift,
    TimmViT,
    VideoInput,
    VideoMAE,
    ViT,
)

if TYPE_CHECKING:
    from cast_ray.config import ModelConfig

__all__ = ["NAMED", "spec_of", "trains_experts"]

SPACE_AND_TIME = ExchangeSpec(
    directions=(
        Direction(source=TEMPORAL, target=SPATIAL, window="time"),
        Direction(source=SPATIAL, target=TEMPORAL, window="space"),
    )
)
"""B-CAST: the spatial expert asks along time, the temporal expert asks within a time step (CAST, equations 7, 8)."""

HALF = (0.5, 0.5, 0.5)
NO_ADAPTERS = HeadSpec(adapters="no")


def _joint(one: str, other: str) -> ExchangeSpec:
    """Every token of one expert and every token of the other, both ways (CA2ST's audio exchanges)."""
    return ExchangeSpec(
        directions=(
            Direction(source=one, target=other, window="space_time"),
            Direction(source=other, target=one, window="space_time"),
        )
    )


def _alone(role: str, expert: ExpertSpec) -> NetworkSpec:
    return NetworkSpec(experts={role: expert}, head=NO_ADAPTERS)


def _cast(spatial: ExpertSpec, temporal: ExpertSpec) -> NetworkSpec:
    return NetworkSpec(
        experts={SPATIAL: spatial, TEMPORAL: temporal},
        exchanges=(SPACE_AND_TIME,),
        head=HeadSpec(fields={VERB: (TEMPORAL,), NOUN: (SPATIAL,)}),
    )


def _cava(audio: ExpertSpec, spatial: ExpertSpec) -> NetworkSpec:
    return NetworkSpec(
        experts={AUDIO: audio, SPATIAL: spatial},
        exchanges=(_joint(AUDIO, SPATIAL),),
        head=HeadSpec(adapters="skip"),
    )


def _ca2st(audio: ExpertSpec, spatial: ExpertSpec, temporal: ExpertSpec) -> NetworkSpec:
    return NetworkSpec(
        experts={AUDIO: audio, SPATIAL: spatial, TEMPORAL: temporal},
        exchanges=(SPACE_AND_TIME, _joint(AUDIO, SPATIAL), _joint(AUDIO, TEMPORAL)),
        head=HeadSpec(
            fields={VERB: (TEMPORAL, AUDIO), NOUN: (SPATIAL, AUDIO)}, field_adapters="plain", mlp_experts=(AUDIO,)
        ),
    )


def _frames(expert: ExpertSpec, shift: Shift | None) -> NetworkSpec:
    """A frame-wise ViT that is trained as a whole, with logits averaged over frames."""
    sizes: dict[str, Any] = expert.sizes
    return NetworkSpec(
        experts={SPATIAL: ViT(**sizes, adapters=False, shift=shift)},
        head=HeadSpec(adapters="no", zero_classifier=True),
        # These ImageNet-21k weights saw pixels from -1 to 1.
        video=VideoInput(num_frames=8, frames_per_step=1, mean=HALF, std=HALF),
    )


ABLATIONS: Mapping[str, ModelOptions] = {
    "independent": ModelOptions(exchange="none"),
    "independent_no_adapters": ModelOptions(exchange="none", adapters=False),
    "late_add": ModelOptions(exchange="none", adapters=False, fusion="add"),
    "late_concat": ModelOptions(exchange="none", adapters=False, fusion="concat"),
    "lateral": ModelOptions(exchange="lateral", adapters=False),
    "attention": ModelOptions(exchange="attention"),
    "attention_adapter": ModelOptions(exchange="attention_adapter"),
    "ratio1": ModelOptions(down_ratio=1),
    "ratio4": ModelOptions(down_ratio=4),
    "ratio8": ModelOptions(down_ratio=8),
    "space_time_windows": ModelOptions(to_spatial="space_time", to_temporal="space_time"),
    "space_time_to_spatial": ModelOptions(to_spatial="space_time"),
    "space_windows": ModelOptions(to_spatial="space"),
    "to_temporal_only": ModelOptions(to_spatial="off"),
    "to_spatial_only": ModelOptions(to_temporal="off"),
    "clip_clip": ModelOptions(temporal="clip"),
    "videomae_clip": ModelOptions(spatial="videomae", temporal="clip"),
    "videomae_videomae": ModelOptions(spatial="videomae"),
    "no_positions": ModelOptions(positions="none"),
    "mvd": ModelOptions(temporal="mvd"),
    "in21k": ModelOptions(spatial="vit"),
}
"""The ablations of CAST, as variants of a CAST model."""

EVA = "eva02_base_patch16_clip_224"
"""timm's name of the EVA spatial expert of table 7; it has the sizes of a ViT-B/16."""

SHIFTS: Mapping[str, Shift | None] = {
    "framewise": None,
    "tokenshift": Shift(of="token"),
    **{f"msca_{of}": Shift(of=of) for of in ("q", "k", "v", "qk", "qv", "kv", "qkv")},
    **{f"msca_patch_{of}": Shift(of=of, axis="patch") for of in ("q", "k", "v", "qk", "qv", "kv", "qkv")},
}


def _base_models() -> Iterator[tuple[str, NetworkSpec]]:
    large = ExpertSpec(width=1024, depth=24, num_heads=16)
    clip_large = CLIP(patch_size=14, width=1024, depth=24, num_heads=16)
    mae_large = VideoMAE(width=1024, depth=24, num_heads=16)
    yield "cast_base_patch16_224", _cast(CLIP(), VideoMAE())
    yield "cast_large_patch14_224", _cast(clip_large, mae_large)
    yield "spatial_base_patch16_224", _alone(SPATIAL, CLIP())
    yield "spatial_large_patch14_224", _alone(SPATIAL, clip_large)
    yield "temporal_base_patch16_224", _alone(TEMPORAL, VideoMAE())
    yield "temporal_large_patch16_224", _alone(TEMPORAL, mae_large)
    yield "audio_base_patch16_400", _alone(AUDIO, AST(tune_norm=True))
    yield "cava_base_patch16_224", _cava(AST(), CLIP())
    yield "ca2st_base_patch16_224", _ca2st(AST(), CLIP(), VideoMAE())
    for name, shift in SHIFTS.items():
        yield f"{name}_base_patch16_224", _frames(ExpertSpec(), shift)
    yield "framewise_large_patch16_224", _frames(large, None)
    yield "msca_kv_large_patch16_224", _frames(large, Shift())


def _tiny_models() -> Iterator[tuple[str, NetworkSpec]]:
    """Small enough to train from scratch on two CPU cores."""
    clip = CLIP(patch_size=8, width=64, depth=3, num_heads=4)
    mae = VideoMAE(patch_size=8, width=64, depth=3, num_heads=4)
    ast = AST(stride=16, width=64, depth=3, num_heads=4)
    models = {
        "cast_tiny": _cast(clip, mae),
        "spatial_tiny": _alone(SPATIAL, clip),
        "temporal_tiny": _alone(TEMPORAL, mae),
        "audio_tiny": _alone(AUDIO, replace(ast, tune_norm=True)),
        "cava_tiny": _cava(ast, clip),
        "ca2st_tiny": _ca2st(ast, clip, mae),
        **{f"{name}_tiny": _frames(clip, _quarter(shift)) for name, shift in SHIFTS.items()},
    }
    audio = AudioInput(mel_bins=128, frames=128)
    # An adapter that starts as nothing keeps the gradient from experts that have yet to learn (docs/log.md).
    for name in ("cast_tiny", "ca2st_tiny"):
        head = models[name].head
        field_adapters: Literal["no", "skip"] = "no" if head.field_adapters == "no" else "skip"
        models[name] = replace(models[name], head=replace(head, adapters="skip", field_adapters=field_adapters))
    for name, spec in models.items():
        yield name, replace(spec, video=replace(spec.video, image_size=32, num_frames=8), audio=audio)


def _quarter(shift: Shift | None) -> Shift | None:
    """A twelfth of four heads is none."""
    return shift and replace(shift, ratio=0.25)


def _variants(models: Mapping[str, NetworkSpec]) -> Iterator[tuple[str, NetworkSpec]]:
    for name in ("cast_base_patch16_224", "cast_tiny"):
        yield f"{name}_eva", _with_eva(models[name])
        yield f"{name}_eva_mvd", _with_eva(vary(models[name], ModelOptions(temporal="mvd")))
        for label, options in ABLATIONS.items():
            yield f"{name}_{label}", vary(models[name], options)
        depth = models[name].depth
        for last in sorted({max(1, depth * quarters // 4) for quarters in (1, 2, 3)}):
            blocks = tuple(range(depth - last + 1, depth + 1))
            yield f"{name}_last{last}", vary(models[name], ModelOptions(blocks=blocks))
    for name in ("cava_base_patch16_224", "cava_tiny", "ca2st_base_patch16_224", "ca2st_tiny"):
        yield f"{name}_clock", vary(models[name], ModelOptions(audio_positions="clock"))
    for name, blocks in (("ca2st_base_patch16_224", (10, 11, 12)), ("ca2st_tiny", (3,))):
        late = ModelOptions(audio_positions="clock", audio_blocks=blocks)
        yield f"{name}_last{len(blocks)}_clock", vary(models[name], late)
        yield f"{name}_last{len(blocks)}_clock_shared", vary(models[name], replace(late, shared_projections=True))
        yield f"{name}_sequence", vary(models[name], ModelOptions(merge="sequence"))
        yield f"{name}_average", vary(models[name], ModelOptions(merge="average"))


def _with_eva(cast: NetworkSpec) -> NetworkSpec:
    sizes: dict[str, Any] = cast.experts[SPATIAL].sizes
    return replace(cast, experts={**cast.experts, SPATIAL: TimmViT(model=EVA, **sizes)})


def _named() -> dict[str, NetworkSpec]:
    models = dict([*_base_models(), *_tiny_models()])
    return models | dict(_variants(models))


NAMED: Mapping[str, NetworkSpec] = _named()
"""Every named model at its usual size."""


def spec_of(model: ModelConfig) -> NetworkSpec:
    """What a run's model is made of.

    Raises:
        UserError: the name is unknown, or an option does not fit the model.
    """
    if model.name not in NAMED:
        near = difflib.get_close_matches(model.name, NAMED, n=3)
        meant = f"did you mean {' or '.join(near)}? " if near else ""
        raise UserError(f"model.name is '{model.name}'; {meant}`cast-ray models` lists the {len(NAMED)} names")
    spec = vary(NAMED[model.name], model.options)
    return replace(
        spec,
        video=spec.video.resized(image_size=model.image_size, num_frames=model.num_frames),
        drop_path_rate=model.drop_path,
    )


def trains_experts(model: ModelConfig) -> bool:
    """Whether a run trains the experts themselves: as asked, or else where none of them has adapters."""
    return spec_of(model).trains_whole if model.train_experts is None else model.train_experts
