"""How a video file becomes what a network takes of it, without a prepared dataset: whole, or part by part."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from cast_ray.data.decode import UnreadableVideo
from cast_ray.data.file_loader import row_of
from cast_ray.data.ingest import stored_clips
from cast_ray.data.loader import ClipLoader, Content, Wanted
from cast_ray.data.manifest import VALIDATION, Clip
from cast_ray.data.media import Facts, MediaFormat, StoredClip
from cast_ray.data.views import TestViews

__all__ = ["WHOLE", "Loaded", "PartLoader", "Span", "explained"]

Span = tuple[float | None, float | None]
"""First and last second of a part; None: the beginning, the end."""
WHOLE: Span = (None, None)
FFMPEG_SAYS = "Invalid data found"
NO_VIDEO = "it is no video, or its beginning or index is missing or damaged"
DAMAGED = "it is damaged: it opens, but frames cannot be decoded"


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A part of a file as a network takes it, or the reason why it cannot be read."""

    content: Content | None
    """Columns as `ClipLoader` makes them, of one clip: without the axis of clips. None: it cannot be read."""
    reason: str = ""
    """Why there is no content, or why there is no sound although there should be."""
    facts: Facts | None = None
    """What the file says of the part; None: it cannot be read."""

    @property
    def seconds(self) -> float | None:
        """How long the part lasts; None where the file states no frame rate."""
        return None if self.facts is None or self.facts.fps <= 0 else self.facts.num_frames / self.facts.fps

    def usable(self) -> Content:
        """The content; raises `UnreadableVideo` if there is none."""
        if self.content is None:
            raise UnreadableVideo(self.reason)
        return self.content


@dataclass(frozen=True, kw_only=True)
class PartLoader:
    """Files in, what the network takes of them out. PyAV decodes: exact on all files, whatever people bring."""

    view: TestViews
    wanted: Wanted
    time_limit_s: float = 60.0
    """Seconds for each of: opening, the frames, the sound; and per minute of a long part."""
    longest_s: float | None = None
    """Longer parts are not decoded; None: any length."""

    def __call__(self, uri: str, spans: Iterable[Span] = (WHOLE,)) -> Iterator[Loaded]:
        """The parts of one file, one at a time and only that much of the file in memory.

        Args:
            uri: path or URI.
            spans: in seconds.

        Raises:
            UserError: the file is not there, or its storage fails.
        """
        clips = [
            Clip(clip_id=uri, uri=uri, labels=(), split=VALIDATION, start_s=start_s, stop_s=stop_s)
            for start_s, stop_s in spans
        ]
        for stored in stored_clips(clips, MediaFormat(time_limit_s=self.time_limit_s)):
            yield self._loaded(stored)

    def _loaded(self, stored: StoredClip) -> Loaded:
        facts = stored.facts
        if facts is None:
            return Loaded(content=None, reason=explained(stored.reason))
        if self.longest_s is not None and 0 < facts.fps * self.longest_s < facts.num_frames:
            seconds = facts.num_frames / facts.fps
            return Loaded(content=None, reason=f"it lasts {seconds:.1f} s, at most {self.longest_s:g} s are accepted")
        loader = ClipLoader(
            root="", view=self.view, columns=(), wanted=self.wanted, decoder="pyav", time_limit_s=self.time_limit_s
        )
        ((content, reason),) = loader.load([{"clip_id": stored.clip.clip_id, **row_of(stored)}], stored.media)
        if content is None:
            return Loaded(content=None, reason=explained(reason, DAMAGED))
        return Loaded(content=content, reason=reason, facts=facts)


def explained(reason: str, meaning: str = NO_VIDEO) -> str:
    """A reason in words: FFmpeg says the same of a text file, of a lost index and of broken pictures."""
    return f"{meaning} (FFmpeg: {reason})" if reason.startswith(FFMPEG_SAYS) else reason
