"""Settings of the input: how clips are read, sampled and changed at random."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cast_ray.checks import require, require_positive, require_share
from cast_ray.data.decode import Decoder

__all__ = ["AudioConfig", "AugmentConfig", "DataConfig"]


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """How clips are sampled and read."""

    sampling: Literal["uniform", "dense"] = "uniform"
    """uniform: one random frame in each of equal segments; dense: a window of frames at a fixed stride."""
    stride: int = 4
    """Distance of sampled frames in dense sampling, in frames."""
    max_unreadable: float = 0.01
    """Share of an epoch's clips that may be unreadable before the run stops."""
    clips_per_task: int = 32
    """Clips that one decode task handles, at least one micro batch."""
    cpus_per_decode: float = 1.0
    """CPU cores that Ray sets aside for one decode task."""
    decoder: Decoder | None = None
    """What decodes encoded video; torchcodec needs FFmpeg's libraries on every node. None: PyAV for short-GOP shards,
    which it reads in half of the time, else decord."""
    decode_time_limit_s: float = 60.0
    """Seconds after which a clip that is still being decoded is given up as unreadable."""
    tasks_per_decoder: int = 1000
    """Decode tasks after which a worker process is replaced by a new one: decoders lose memory."""

    def __post_init__(self) -> None:
        require_share("data.max-unreadable", self.max_unreadable)
        require_positive("data.stride", self.stride)
        require_positive("data.clips-per-task", self.clips_per_task)
        require_positive("data.cpus-per-decode", self.cpus_per_decode)
        require_positive("data.decode-time-limit-s", self.decode_time_limit_s)
        require_positive("data.tasks-per-decoder", self.tasks_per_decoder)


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Random changes of training clips."""

    crop_area: tuple[float, float] = (0.08, 1.0)
    """Smallest and largest share of the frame's area that the random crop covers."""
    crop_ratio: tuple[float, float] = (0.75, 4 / 3)
    """Smallest and largest width / height of the random crop before resizing."""
    flip: float = 0.5
    """Probability of a horizontal flip. Keep 0 where left and right are part of the label."""
    rand_augment: str | None = "rand-m7-n4-mstd0.5-inc1"
    """RandAugment in timm's notation, one draw per clip; None switches it off."""
    repeats: int = 1
    """Times that each clip comes per epoch, one after the other, each time with other random frames and changes."""
    erase: float = 0.0
    """Probability that a box is erased from a clip, the same one from all its frames."""
    erase_mode: Literal["pixel", "const"] = "pixel"
    """What fills an erased box: noise, or the mean colour."""
    erase_area: tuple[float, float] = (0.02, 1 / 3)
    """Smallest and largest share of the frame's area that is erased."""
    mixup_alpha: float = 0.8
    """Both parameters of the Beta distribution that mixup draws from; 0 switches it off."""
    cutmix_alpha: float = 0.0
    """Likewise for CutMix, which pastes a box of another clip instead of blending the two; 0 switches it off."""
    cutmix_switch: float = 0.5
    """Probability of CutMix instead of mixup where both are on."""
    mixup_probability: float = 0.9
    """Probability that a micro batch is mixed, by mixup or CutMix."""

    def __post_init__(self) -> None:
        low, high = self.crop_area
        require(0 < low <= high <= 1, f"augment.crop-area is {low} {high}; give 0 < smallest <= largest <= 1")
        low, high = self.crop_ratio
        require(0 < low <= high, f"augment.crop-ratio is {low} {high}; give 0 < smallest <= largest")
        require_share("augment.flip", self.flip)
        require_share("augment.mixup-probability", self.mixup_probability)
        require_positive("augment.repeats", self.repeats)
        require_share("augment.erase", self.erase)
        low, high = self.erase_area
        require(0 < low <= high <= 1, f"augment.erase-area is {low} {high}; give 0 < smallest <= largest <= 1")
        require_share("augment.cutmix-switch", self.cutmix_switch)
        for name, alpha in (("mixup-alpha", self.mixup_alpha), ("cutmix-alpha", self.cutmix_alpha)):
            require(alpha >= 0, f"augment.{name} is {alpha}; give 0 or more")


@dataclass(frozen=True, kw_only=True)
class AudioConfig:
    """Random changes of training clips' spectrograms; nothing of it matters to a model without an audio expert."""

    time_masks: int = 2
    """Stripes of time that are blanked out in every spectrogram; 0 switches them off."""
    time_mask_columns: int = 70
    """Longest stripe of time, in columns of 10 ms."""
    frequency_masks: int = 2
    """Stripes of frequency that are blanked out in every spectrogram; 0 switches them off."""
    frequency_mask_bins: int = 20
    """Widest stripe of frequency, in mel bins."""
    mask_share: float = 0.2
    """Largest share of a clip's columns, or of the bins, that one stripe may cover; matters to short clips."""
    mixing: Literal["linear", "cutmix", "none"] = "linear"
    """How sound is mixed where clips are: blended, a box of the other spectrogram pasted, or not at all."""

    def __post_init__(self) -> None:
        for name in ("time_masks", "time_mask_columns", "frequency_masks", "frequency_mask_bins"):
            value = getattr(self, name)
            require(value >= 0, f"audio.{name.replace('_', '-')} is {value}; give 0 or more")
        require_share("audio.mask-share", self.mask_share)
