"""What a shard holds of a clip: its media, what is known about them, and the choices of how they are stored."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from cast_ray.data.decoders.guard import UnreadableVideo
from cast_ray.data.manifest import Clip
from cast_ray.errors import UserError

__all__ = ["WITHOUT_SOUND", "Facts", "Media", "MediaFormat", "StoredClip", "check_size"]

LARGEST = 2**31 - 2**20
"""Bytes that one clip's video, frames or sound may have: Parquet holds no more in one value or page."""
WITHOUT_SOUND = "used without its sound: "
"""Begins the reason of a clip whose sound is broken."""


@dataclass(frozen=True, kw_only=True)
class MediaFormat:
    """How the videos and sounds of a dataset are stored."""

    video: Literal["original", "short-gop", "jpeg"] = "original"
    """original: the stream as it is, of a segment the packets from the key frame before it; short-gop: H.264 of which
    any frame is decoded from a few others; jpeg: every frame a picture, fast to read and large."""
    sound: Literal["original", "16khz", "none"] = "original"
    """original: as it is, inside the original video; 16khz: one channel of 16 kHz, lossless (FLAC); none."""
    short_side: int = 256
    """short-gop, jpeg: the shorter side of larger frames becomes this many pixels; smaller frames stay."""
    gop: int = 8
    """short-gop: frames from one key frame to the next."""
    crf: int = 20
    """short-gop: x264's quality, 0 (best) to 51."""
    frame_rate: float | None = None
    """jpeg: frames per second that are kept, evenly spaced; None: all."""
    quality: int = 90
    """jpeg: quality, 1 to 100."""
    verify: bool = False
    """original: decode every clip, to find damage now and not in training; the other formats do anyway."""
    time_limit_s: float = 120.0
    """Seconds for every minute of a clip, a shorter clip has one, after which it is given up."""

    @property
    def stored(self) -> dict[str, Any]:
        """What decides about the stored bytes; the rest may be another when a preparation is continued."""
        return {name: value for name, value in asdict(self).items() if name not in ("verify", "time_limit_s")}

    def __post_init__(self) -> None:
        if self.video != "original" and self.sound == "original":
            raise UserError(f"sound 'original' does not go with video '{self.video}'; use 16khz or none")
        if self.frame_rate is not None and self.video != "jpeg":
            raise UserError(f"frame-rate {self.frame_rate} goes with video 'jpeg' only, not '{self.video}'")
        limits = {"short_side": (16, 8192), "gop": (1, 1000), "crf": (0, 51), "quality": (1, 100)}
        for name, (low, high) in limits.items():
            if not low <= getattr(self, name) <= high:
                raise UserError(f"{name.replace('_', '-')} is {getattr(self, name)}; give {low} to {high}")
        for name in ("frame_rate", "time_limit_s"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UserError(f"{name.replace('_', '-')} is {value}; give a number above 0")


@dataclass(frozen=True, kw_only=True)
class Media:
    """What is stored of one clip."""

    video: bytes | None = None
    """An encoded video, perhaps with sound."""
    frames: tuple[bytes, ...] | None = None
    """Or its frames as JPEG, evenly spaced over `Facts.num_frames` frames."""
    sound: bytes | None = None
    """The clip's sound alone (FLAC, one channel of 16 kHz); it begins with the clip."""

    @property
    def size(self) -> int:
        """Bytes in all."""
        return len(self.video or b"") + sum(map(len, self.frames or ())) + len(self.sound or b"")


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known about a clip's media; of the clip, not of the longer video that it may have been cut from."""

    num_frames: int
    """Frames of the source between the clip's begin and end, whatever is stored of them."""
    fps: float
    """The source's frames per second, on average; 0.0 where the container does not say."""
    width: int
    """Of the stored frames as shown (rotation applied), in pixels."""
    height: int
    video_codec: str
    """Of the stored frames: h264, jpeg ..."""
    sound_codec: str
    """Of the stored sound: aac, flac ...; empty if the clip has none."""
    source: str
    """The source's codec and size, for example "hevc 1920x1080"."""


@dataclass(frozen=True, kw_only=True)
class StoredClip:
    """One row of a shard."""

    clip: Clip
    """As the manifest names it."""
    media: Media = Media()
    facts: Facts | None = None
    """None if the clip cannot be used."""
    start_s: float | None = None
    """First second of the clip inside `media.video`; None: the beginning. Differs from `clip.start_s` if it was cut."""
    stop_s: float | None = None
    reason: str = ""
    """Why the clip cannot be used, then `media` is empty: the clip is quarantined. Else why it has no sound although it
    should, or nothing."""

    @property
    def quarantined(self) -> bool:
        """Whether the clip cannot be used."""
        return self.facts is None


def check_size(what: str, size: int) -> None:
    """Raise `UnreadableVideo` if a part of a clip has too many bytes for a shard, or for memory."""
    if size > LARGEST:
        raise UnreadableVideo(f"{what} has {size:,} bytes, a clip may have {LARGEST:,}")
