"""What a network is made of, as plain data: experts, exchanges between them, a head, and its inputs.

Nothing here imports torch: a driver that only plans a run asks these classes what a model needs.
`cast_ray.models.assemble` turns a `NetworkSpec` into a network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from cast_ray.errors import UserError

__all__ = [
    "AST",
    "AUDIO",
    "AUDIO_TIMES",
    "CLIP",
    "HAS_AUDIO",
    "SIZES",
    "SPATIAL",
    "TEMPORAL",
    "VIDEO",
    "VIDEO_TIMES",
    "AudioInput",
    "Direction",
    "ExchangeKind",
    "ExchangeSpec",
    "ExpertSpec",
    "HeadSpec",
    "Merge",
    "NetworkSpec",
    "Positions",
    "Shift",
    "TimmViT",
    "ViT",
    "VideoInput",
    "VideoMAE",
    "WindowName",
    "require_choices",
]

SPATIAL, TEMPORAL, AUDIO = "spatial", "temporal", "audio"
"""Names of the experts' roles. AUDIO is also the name of the model input with spectrograms."""

VIDEO, HAS_AUDIO = "video", "has_audio"
VIDEO_TIMES, AUDIO_TIMES = "video_times", "audio_times"
"""Names of a network's inputs; shapes in `cast_ray.models.network`."""

ExchangeKind = Literal["bottleneck", "attention", "attention_adapter", "lateral"]
Positions = Literal["learned", "clock", "none"]
Merge = Literal["sum", "average", "sequence"]
WindowName = Literal["time", "space", "space_time"]


def _require_whole(spec: object, *names: str) -> None:
    for name in names:
        value = getattr(spec, name)
        if not (isinstance(value, int) and not isinstance(value, bool) and value > 0):
            raise UserError(f"{name} is {value!r}; give a positive whole number")


def require_choices(spec: Any) -> None:
    """Raise `UserError` if a field of a dataclass whose type is a list of words has another value."""
    for name, choices in _choices(type(spec)).items():
        value = getattr(spec, name)
        if value not in choices:
            raise UserError(f"{name} is {value!r}; use one of {[*choices]}")


def _choices(spec: type) -> dict[str, tuple[Any, ...]]:
    """The values of every field that is `Literal`, or a union of `Literal` and None."""
    found = {}
    for name, hint in get_type_hints(spec).items():
        arms = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
        if any(get_origin(arm) is Literal for arm in arms):
            found[name] = tuple(value for arm in arms for value in (get_args(arm) or (None,)))
    return found


def _require_multiple(whole_name: str, whole: int, part_name: str, part: int) -> None:
    if whole % part:
        raise UserError(f"{whole_name} {whole} is not a multiple of {part_name} {part}; change one of them")


@dataclass(frozen=True, kw_only=True)
class VideoInput:
    """The one clip size that a network is built for.

    Raises:
        UserError: a size is not positive, or the frames do not divide into steps.
    """

    image_size: int = 224
    """Height and width of the frames, pixels."""
    num_frames: int = 16
    """Frames of a clip that enter the model."""
    frames_per_step: int = 2
    """Frames of one time step: a tubelet of VideoMAE spans them, frame-wise experts look at the last of them."""
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """Subtracted from red, green and blue in 0 to 1; by default ImageNet's mean, as CAST has it for all experts."""
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    """What they are divided by after that."""

    def __post_init__(self) -> None:
        _require_whole(self, "image_size", "num_frames", "frames_per_step")
        _require_multiple("num_frames", self.num_frames, "frames_per_step", self.frames_per_step)

    @property
    def steps(self) -> int:
        return self.num_frames // self.frames_per_step

    def resized(self, *, image_size: int | None, num_frames: int | None) -> VideoInput:
        """The same with other sizes; None keeps one."""
        return replace(
            self,
            image_size=self.image_size if image_size is None else image_size,
            num_frames=self.num_frames if num_frames is None else num_frames,
        )

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """[3, T, H, W] of one clip."""
        return 3, self.num_frames, self.image_size, self.image_size


@dataclass(frozen=True, kw_only=True)
class AudioInput:
    """The one spectrogram size that a network is built for."""

    mel_bins: int = 128
    """Frequency bins."""
    frames: int = 400
    """Columns of 10 ms: 400 for EPIC-SOUNDS and EPIC-KITCHENS (4 s), 1024 for VGG-Sound."""

    def __post_init__(self) -> None:
        _require_whole(self, "mel_bins", "frames")

    @property
    def shape(self) -> tuple[int, int]:
        """[M, F] of one spectrogram."""
        return self.mel_bins, self.frames


SIZES = ("patch_size", "width", "depth", "num_heads", "mlp_ratio")
"""Names of the sizes that experts of every family have."""


@dataclass(frozen=True, kw_only=True)
class ExpertSpec:
    """What the families of experts have in common; the defaults are those of ViT-B/16.

    Raises:
        UserError: a size is not positive, or two sizes do not fit together.
    """

    patch_size: int = 16
    """Height and width of a patch, pixels."""
    width: int = 768
    """Channels of a token."""
    depth: int = 12
    """Number of blocks."""
    num_heads: int = 12
    """Attention heads."""
    mlp_ratio: int = 4
    """Width of the feed-forward layer's middle, as a multiple of `width`."""
    adapters: bool = True
    """Whether the blocks have adapters; without them only training the whole expert adapts it."""
    tune_norm: bool = True
    """Whether the final norm trains while the expert is frozen."""

    def __post_init__(self) -> None:
        _require_whole(self, "patch_size", "width", "depth", "num_heads", "mlp_ratio")
        _require_multiple("width", self.width, "num_heads", self.num_heads)
        require_choices(self)

    @property
    def sizes(self) -> dict[str, int]:
        """What an expert of another family needs to have the same size."""
        return {name: getattr(self, name) for name in SIZES}


@dataclass(frozen=True, kw_only=True)
class CLIP(ExpertSpec):
    """Visual tower of CLIP, frame by frame, one class token per frame."""

    activation: Literal["quick_gelu", "gelu"] = "quick_gelu"
    """OpenAI's weights need quick_gelu; most of open_clip's own (LAION and others) need gelu."""


@dataclass(frozen=True, kw_only=True)
class VideoMAE(ExpertSpec):
    """Encoder of VideoMAE or MVD: joint attention over all tubelets, no class token."""

    positions: Literal["sequence", "axes"] = "sequence"
    """Fixed positions: one code for the place in the sequence (VideoMAE), or one for time, column and row each (MVD).

    Fine-tuned files of the two look alike, so that the choice cannot be checked against the weights.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.positions == "axes":
            _require_multiple("width", self.width, "the channels of an axis", 16)


@dataclass(frozen=True, kw_only=True)
class AST(ExpertSpec):
    """Audio spectrogram transformer: class and distillation token, overlapping patches."""

    stride: int = 10
    """Distance of neighbouring patches, pixels of the spectrogram."""
    tune_norm: bool = False

    def grid(self, audio: AudioInput) -> tuple[int, int]:
        """Rows (frequency) and columns (time) of patches."""
        rows, columns = ((size - self.patch_size) // self.stride + 1 for size in audio.shape)
        if rows < 1 or columns < 1:
            raise UserError(
                f"a spectrogram of {audio.mel_bins} bins x {audio.frames} columns has no patch of {self.patch_size} "
                "pixels; give a larger one"
            )
        return rows, columns


@dataclass(frozen=True, kw_only=True)
class Shift:
    """How a frame-wise ViT looks at neighbouring frames: MSCA or TokenShift, and their options.

    Hashiguchi and Tamaki, "Temporal cross-attention for action recognition" (MSCA), ACCV 2022 workshops; Zhang, Hao and
    Ngo, "Token shift transformer for video classification", arXiv 2108.02432.
    """

    of: Literal["q", "k", "v", "qk", "qv", "kv", "qkv", "token"] = "kv"
    """What comes from the neighbouring frames: projections of the attention (MSCA), or class-token channels."""
    axis: Literal["head", "patch"] = "head"
    """MSCA: whole heads for all tokens, or some tokens for all heads (our reading of the paper)."""
    ratio: float | None = None
    """Share of heads, patches or channels from the next frame, and again from the previous one.

    None: 1/12 of heads and patches, 1/4 of the class token's channels, as released.
    """
    class_token: bool = False
    """Patch axis: whether the class token is shifted as well."""
    pattern: Literal["blocks", "interleaved"] = "blocks"
    """Patch axis: whether shifted patches are runs in raster order or spread evenly."""
    boundary: Literal["zero", "keep"] = "zero"
    """What stands for a neighbour that does not exist: zeros, or the frame's own values."""

    def __post_init__(self) -> None:
        require_choices(self)
        if self.axis == "patch" and self.of == "token":
            raise UserError("TokenShift shifts channels of the class token; leave the patch axis away, or use MSCA")
        if self.axis == "head" and (self.class_token or self.pattern != "blocks"):
            raise UserError("a choice of shifted tokens concerns the patch axis only; leave it away, or shift patches")
        if self.ratio is not None and not 0 <= self.ratio <= 0.5:
            raise UserError(f"the shift's ratio is {self.ratio}; give a share from 0 to 0.5, it is taken twice")


@dataclass(frozen=True, kw_only=True)
class ViT(ExpertSpec):
    """Frame-wise ViT as in ImageNet-21k checkpoints of timm; with `shift`, MSCA or TokenShift."""

    shift: Shift | None = None


@dataclass(frozen=True, kw_only=True)
class TimmViT(ExpertSpec):
    """Any plain ViT of timm as a frame-wise expert, for example EVA-02; the sizes must be those of the model."""

    model: str
    """Name for `timm.create_model`."""


@dataclass(frozen=True, kw_only=True)
class Direction:
    """One direction of talk: patches of `target` query patches of `source` inside `window`."""

    source: str
    target: str
    window: WindowName

    def __post_init__(self) -> None:
        require_choices(self)

    @property
    def name(self) -> str:
        return f"{self.source}_to_{self.target}"


@dataclass(frozen=True, kw_only=True)
class ExchangeSpec:
    """What two experts tell each other, in which blocks and by which mechanism."""

    directions: tuple[Direction, ...]
    kind: ExchangeKind = "bottleneck"
    """bottleneck: B-CAST; attention: at full width; attention_adapter: that and an adapter; lateral: a linear map."""
    down_ratio: int = 2
    """How many times narrower a bottleneck is than the narrowest expert."""
    positions: Positions = "learned"
    """learned: a table per axis of the window; clock: an embedding of start and end second; none."""
    blocks: tuple[int, ...] | None = None
    """Numbers of the blocks that have it, from 1; None: all."""

    def __post_init__(self) -> None:
        _require_whole(self, "down_ratio")
        require_choices(self)

    def acts_in(self, block: int) -> bool:
        """Whether the block of this number, from 1, has it."""
        return self.blocks is None or block in self.blocks

    @property
    def experts(self) -> tuple[str, ...]:
        """Names of the experts involved, in alphabetical order."""
        return tuple(sorted({name for direction in self.directions for name in (direction.source, direction.target)}))

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of the experts that hear something, in alphabetical order."""
        return tuple(sorted({direction.target for direction in self.directions}))


@dataclass(frozen=True, kw_only=True)
class HeadSpec:
    """How class scores are read from the experts' features."""

    fields: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Experts that a label field of a compositional task is read from; every other field is read from all experts."""
    adapters: Literal["no", "plain", "skip"] = "plain"
    """Last adapter of every expert that fields share: none, one that starts as nothing, one that starts as identity."""
    field_adapters: Literal["no", "plain", "skip"] = "no"
    """Last adapters of fields with experts of their own, in the same words."""
    mlp_experts: tuple[str, ...] = ()
    """Experts whose last adapter is an ordinary two-layer network with QuickGELU instead."""
    fusion: Literal["sum", "concat"] = "sum"
    """How features are joined before the classifier: added, or concatenated and projected to the width of one."""
    zero_classifier: bool = False
    """Whether classifiers start at zero instead of small random weights."""

    def __post_init__(self) -> None:
        require_choices(self)


@dataclass(frozen=True, kw_only=True)
class NetworkSpec:
    """A whole network but for its classes.

    Raises:
        UserError: the parts do not fit together.
    """

    experts: Mapping[str, ExpertSpec]
    exchanges: tuple[ExchangeSpec, ...] = ()
    head: HeadSpec = HeadSpec()
    video: VideoInput = VideoInput()
    audio: AudioInput = AudioInput()
    merge: Merge = "sum"
    """How several exchanges of one block reach one expert: added, averaged, or one after the other."""
    shared_projections: bool = False
    """Whether the exchanges of a block share each expert's way into and out of the bottleneck."""
    split_clock: bool = True
    """Whether audio and video have embeddings of seconds of their own."""
    drop_path_rate: float = 0.0
    """Chance of dropping a trainable branch in the last block; it grows linearly from 0 in the first."""

    def __post_init__(self) -> None:
        require_choices(self)
        if not 0 <= self.drop_path_rate < 1:
            raise UserError(f"drop_path_rate is {self.drop_path_rate}; give a number from 0 to below 1")
        depths = {name: expert.depth for name, expert in self.experts.items()}
        if len(set(depths.values())) != 1:
            raise UserError(f"the experts have depths {depths}; experts that run in step need equal depth")
        for exchange in self.exchanges:
            strangers = set(exchange.experts) - set(self.experts)
            if strangers:
                raise UserError(f"exchanges name {sorted(strangers)}, but the experts are {list(self.experts)}")
            outside = [block for block in exchange.blocks or () if not 1 <= block <= self.depth]
            if outside:
                raise UserError(f"exchanges are asked for in blocks {outside}; the model has blocks 1 to {self.depth}")

    @property
    def depth(self) -> int:
        return next(iter(self.experts.values())).depth

    @property
    def drop_path_rates(self) -> tuple[float, ...]:
        return tuple(self.drop_path_rate * index / max(1, self.depth - 1) for index in range(self.depth))

    @property
    def trains_whole(self) -> bool:
        """Whether the usual training changes the experts themselves: so it must be where they have no adapters."""
        return not any(expert.adapters for expert in self.experts.values())

    @property
    def needs(self) -> frozenset[str]:
        """Names of the inputs that the network takes."""
        needs = {AUDIO if isinstance(expert, AST) else VIDEO for expert in self.experts.values()}
        if AUDIO in needs:
            needs.add(HAS_AUDIO)
        for exchange in self.exchanges:
            if exchange.positions == "clock":
                needs |= {AUDIO_TIMES if isinstance(self.experts[x], AST) else VIDEO_TIMES for x in exchange.experts}
        return frozenset(needs)
