"""How a named model is varied: one flat, typed set of options that covers the papers' ablations.

Torch-free, like `cast_ray.models.spec`. The numbers of tables are those of the CAST paper, arXiv 2311.18825.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from cast_ray.errors import UserError
from cast_ray.models.spec import (
    AUDIO,
    CLIP,
    SIZES,
    SPATIAL,
    TEMPORAL,
    ExchangeKind,
    ExchangeSpec,
    ExpertSpec,
    HeadSpec,
    Merge,
    NetworkSpec,
    Positions,
    TimmViT,
    VideoMAE,
    ViT,
    WindowName,
    require_choices,
)

__all__ = ["ModelOptions", "vary"]

TIMM = "timm/"


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """Departures from a named model; None leaves what the model has."""

    spatial: str | None = None
    """Expert in the spatial role: clip, clip_gelu, videomae, mvd, vit, or timm/NAME for a ViT of timm (table 1h, 7)."""
    temporal: str | None = None
    """Expert in the temporal role, from the same choice."""
    adapters: bool | None = None
    """Whether experts have adapters; without them, train the experts (table 1a, 1b)."""
    exchange: ExchangeKind | Literal["none"] | None = None
    """Mechanism of every exchange (table 1b, 1c)."""
    down_ratio: int | None = None
    """How many times narrower the bottleneck is than the expert (table 1d)."""
    to_spatial: WindowName | Literal["off"] | None = None
    """Window of the exchange from the temporal to the spatial expert (table 1e), or off (1g)."""
    to_temporal: WindowName | Literal["off"] | None = None
    """Window of the exchange from the spatial to the temporal expert (table 1e), or off (1g)."""
    blocks: tuple[int, ...] | None = None
    """Numbers from 1 of the blocks in which spatial and temporal expert talk (table 1f)."""
    positions: Literal["learned", "none"] | None = None
    """Positions inside the exchanges of spatial and temporal expert (table 8)."""
    fusion: Literal["add", "concat"] | None = None
    """Late fusion: every label is read from the sum, or a projection of the concatenation, of all experts (1b)."""
    audio_frames: int | None = None
    """Columns of the spectrogram, 10 ms each."""
    mel_bins: int | None = None
    """Rows of the spectrogram."""
    audio_blocks: tuple[int, ...] | None = None
    """Numbers from 1 of the blocks in which the audio expert talks to the others."""
    audio_positions: Positions | None = None
    """Positions inside the audio exchanges: learned tables, or embeddings of seconds (clock)."""
    merge: Merge | None = None
    """How several exchanges of one block reach one expert."""
    shared_projections: bool | None = None
    """Whether the exchanges of a block share each expert's projections into and out of the bottleneck."""
    split_clock: bool | None = None
    """Whether audio and video embed seconds separately."""
    shift_of: Literal["q", "k", "v", "qk", "qv", "kv", "qkv", "token"] | None = None
    """MSCA: which projections come from neighbouring frames; token: TokenShift."""
    shift_axis: Literal["head", "patch"] | None = None
    """MSCA: whole heads, or some patches for all heads."""
    shift_ratio: float | None = None
    """Share of heads, patches or channels from the next frame, and again from the previous one."""
    shift_class_token: bool | None = None
    """Patch axis: whether the class token is shifted as well."""
    shift_pattern: Literal["blocks", "interleaved"] | None = None
    """Patch axis: runs in raster order, or spread evenly."""
    shift_boundary: Literal["zero", "keep"] | None = None
    """Beyond the first and last frame: zeros, or the frame's own values."""
    patch_size: int | None = None
    """Height and width of a patch, for all experts. Sizes are for training from scratch."""
    width: int | None = None
    """Channels of a token, for all experts."""
    depth: int | None = None
    """Number of blocks, for all experts."""
    num_heads: int | None = None
    """Attention heads, for all experts."""
    mlp_ratio: int | None = None
    """Width of the feed-forward layer's middle, as a multiple of the width, for all experts."""

    def __post_init__(self) -> None:
        require_choices(self)
        for name in ("blocks", "audio_blocks"):
            if getattr(self, name) == ():
                raise UserError(f"{name} names no block, so nothing would be exchanged; use exchange none for that")

    def given(self, *names: str, prefix: str = "") -> dict[str, Any]:
        """The options among `names` that are set, without their prefix."""
        values = {name.removeprefix(prefix): getattr(self, name) for name in names}
        return {name: value for name, value in values.items() if value is not None}


DIRECTIONS = {SPATIAL: "to_spatial", TEMPORAL: "to_temporal"}
"""The option for the direction to each role."""
SHIFT = tuple(field.name for field in fields(ModelOptions) if field.name.startswith("shift_"))


def vary(spec: NetworkSpec, options: ModelOptions) -> NetworkSpec:
    """The specification with the given options applied.

    Raises:
        UserError: an option concerns something that the model does not have, or makes no sense.
    """
    sizes = options.given(*SIZES)
    experts = {
        name: replace(_expert(name, expert, options), **sizes, **options.given("adapters"))
        for name, expert in spec.experts.items()
    }
    _require_role(options, SPATIAL in experts, "spatial", what="a spatial expert")
    _require_role(options, TEMPORAL in experts, "temporal", what="a temporal expert")
    _require_role(options, len(experts) > 1, "fusion", what="several experts")
    own = all(not isinstance(expert, TimmViT) for expert in experts.values())
    _require_role(options, own, "mlp_ratio", what="a feed-forward layer of free width in its timm expert")
    audio = options.given("audio_frames", "mel_bins")
    _require_role(options, AUDIO in experts, *audio, what="an audio expert")
    return replace(
        spec,
        experts=_shifted(experts, options),
        exchanges=_exchanges(spec, options),
        head=_head(spec.head, options),
        audio=replace(spec.audio, **{name.removeprefix("audio_"): value for name, value in audio.items()}),
        **options.given("merge", "shared_projections", "split_clock"),
    )


def _expert(role: str, expert: ExpertSpec, options: ModelOptions) -> ExpertSpec:
    name = {SPATIAL: options.spatial, TEMPORAL: options.temporal}.get(role)
    if name is None:
        return expert
    shift = expert.shift if isinstance(expert, ViT) else None
    if shift is not None and name != "vit":
        raise UserError(f"the {role} expert shifts in time, which '{name}' cannot; use vit, or a model without a shift")
    sizes: dict[str, Any] = {**expert.sizes, "adapters": expert.adapters}
    if name.startswith(TIMM):
        from cast_ray.models.experts.timm_vit import timm_sizes  # late: it imports torch and timm

        model = name.removeprefix(TIMM)
        sizes = sizes | timm_sizes(model)
        return TimmViT(model=model, **sizes)
    families: Mapping[str, ExpertSpec] = {
        "clip": CLIP(**sizes),
        "clip_gelu": CLIP(**sizes, activation="gelu"),
        "videomae": VideoMAE(**sizes),
        "mvd": VideoMAE(**sizes, positions="axes"),
        "vit": ViT(**sizes, shift=shift),
    }
    if name not in families:
        raise UserError(f"there is no expert '{name}'; use one of {[*families]} or {TIMM}NAME")
    return families[name]


def _shifted(experts: dict[str, ExpertSpec], options: ModelOptions) -> dict[str, ExpertSpec]:
    given = options.given(*SHIFT, prefix="shift_")
    shifted = {
        name: replace(expert, shift=replace(expert.shift, **given))
        for name, expert in experts.items()
        if isinstance(expert, ViT) and expert.shift is not None
    }
    _require_role(options, bool(shifted), *(f"shift_{name}" for name in given), what="a shift (use an msca_ model)")
    return {**experts, **shifted}


def _exchanges(spec: NetworkSpec, options: ModelOptions) -> tuple[ExchangeSpec, ...]:
    talk = ("to_spatial", "to_temporal", "blocks", "positions")
    sound = ("audio_blocks", "audio_positions", "split_clock")
    several = ("merge", "shared_projections")
    involved = [set(exchange.experts) for exchange in spec.exchanges]
    _require_role(options, {SPATIAL, TEMPORAL} in involved, *talk, what="an exchange of spatial and temporal expert")
    _require_role(
        options,
        any(AUDIO in names for names in involved),
        *sound,
        what="an exchange with an audio expert",
    )
    _require_role(options, len(involved) > 1, *several, what="several exchanges")
    _require_role(options, bool(involved), "exchange", what="any exchange")
    kinds = {options.exchange or exchange.kind for exchange in spec.exchanges}
    _require_role(options, kinds == {"bottleneck"}, "down_ratio", what="an exchange with a bottleneck")
    _require_role(options, "lateral" not in kinds, "positions", "audio_positions", what="exchanges with positions")
    if options.exchange == "none":
        _require_role(options, False, *talk, *sound, *several, what="an exchange any more")
        return ()
    varied = [
        _audio_exchange(exchange, options) if AUDIO in names else _visual_exchange(exchange, options)
        for exchange, names in zip(spec.exchanges, involved, strict=True)
    ]
    timed = any(exchange.positions == "clock" for exchange in varied)
    _require_role(options, timed, "split_clock", what="positions from the clock")
    left = [exchange for exchange in varied if exchange.directions]
    _require_role(options, bool(left), "exchange", "down_ratio", what="an exchange any more")
    changes = options.given("down_ratio") | ({} if options.exchange is None else {"kind": options.exchange})
    return tuple(replace(exchange, **changes) for exchange in left)


def _visual_exchange(exchange: ExchangeSpec, options: ModelOptions) -> ExchangeSpec:
    windowed = (options.exchange or exchange.kind) != "lateral"
    for target, name in DIRECTIONS.items():
        _require_role(options, target in exchange.targets, name, what=f"an exchange to the {target} expert")
        _require_role(options, windowed or getattr(options, name) == "off", name, what="exchanges with windows")
    directions = []
    for direction in exchange.directions:
        window = getattr(options, DIRECTIONS[direction.target])
        if window != "off":
            directions.append(direction if window is None else replace(direction, window=window))
    _require_role(options, bool(directions), "blocks", "positions", what="an exchange of these experts any more")
    return replace(exchange, directions=tuple(directions), **options.given("blocks", "positions"))


def _audio_exchange(exchange: ExchangeSpec, options: ModelOptions) -> ExchangeSpec:
    given = options.given("audio_blocks", "audio_positions", prefix="audio_")
    return replace(exchange, **given)


def _head(head: HeadSpec, options: ModelOptions) -> HeadSpec:
    if options.fusion is None:
        return head
    fusion: Literal["sum", "concat"] = "sum" if options.fusion == "add" else "concat"
    return HeadSpec(adapters="no", fusion=fusion, zero_classifier=head.zero_classifier)


def _require_role(options: ModelOptions, present: bool, *names: str, what: str) -> None:
    given = [name for name in names if getattr(options, name) is not None]
    if given and not present:
        raise UserError(f"{', '.join(given)} given, but the model does not have {what}; leave the option away")
