"""What the clips of a dataset are: one row schema for every dataset."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from cast_ray.errors import UserError
from cast_ray.labels import LabelMap

__all__ = ["TRAIN", "VALIDATION", "Clip", "Manifest", "escaped"]

TRAIN, VALIDATION = "train", "validation"
"""Names of the splits."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Clip:
    """One labelled stretch of video."""

    clip_id: str
    """Unique within the dataset; all randomness of this clip is keyed by it."""
    uri: str
    """Path or URI of the video file."""
    labels: tuple[int, ...]
    """Class indices in the order of `LabelMap.fields`."""
    split: str
    """TRAIN or VALIDATION."""
    start_s: float | None = None
    """First second of the clip inside its file; None means the beginning."""
    stop_s: float | None = None
    """Last second of the clip inside its file; None means the end."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """All clips of a dataset with their label map; checked when built.

    Raises:
        UserError: a clip id occurs twice, a label is outside the label map, or an id, a file's name or a class name is
            not UTF-8 text.
    """

    clips: tuple[Clip, ...]
    label_map: LabelMap

    def __post_init__(self) -> None:
        classes = [name for names in self.label_map.names.values() for name in names]
        texts = [text for clip in self.clips for text in (clip.clip_id, clip.uri)]
        odd = [escaped(text) for text in (*classes, *texts) if escaped(text) != text]
        if odd:
            raise UserError(f"names that are not UTF-8 text: {', '.join(odd[:5])}; rename the files, clips or classes")
        for clip in self.clips:
            self.label_map.check(clip.labels, where=f"clip '{clip.clip_id}'")
        counts = Counter(clip.clip_id for clip in self.clips)
        repeated = [clip_id for clip_id, count in counts.items() if count > 1]
        if repeated:
            raise UserError(f"clip ids occur more than once: {repeated[:5]}; give every clip its own id")

    def split(self, name: str) -> tuple[Clip, ...]:
        """The clips of one split, in manifest order; an empty split is a `UserError`."""
        clips = tuple(clip for clip in self.clips if clip.split == name)
        if not clips:
            present = sorted({clip.split for clip in self.clips})
            raise UserError(f"split '{name}' is empty; the annotations have clips only for {present}")
        return clips


def escaped(text: str) -> str:
    """The text with backslash escapes for what cannot be printed or stored as UTF-8, such as bytes of file names."""
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # a surrogate that stands for no byte
        return text.encode("utf-8", "backslashreplace").decode()
