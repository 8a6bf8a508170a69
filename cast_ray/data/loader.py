"""What happens to a clip on a decode worker: fetch, decode, and cut out what the network takes of it.

Shapes: B clips of a block, V views, T frames, U time steps, S x S pixels, F label fields.
"""

from __future__ import annotations

import functools
import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cast_ray.data.decode import Decoder, Unreadable, UnreadableVideo, frame_window, open_media, usual_decoder
from cast_ray.data.media import WITHOUT_SOUND, Media, MediaFormat
from cast_ray.data.order import PADDING
from cast_ray.data.shards import ShardedDataset, read_media
from cast_ray.data.sound import HOP, SAMPLE_RATE, WINDOW, Samples, UnreadableSound, read_sound, samples_for
from cast_ray.data.storage import is_local
from cast_ray.data.views import Occurrence, View
from cast_ray.models.named import spec_of
from cast_ray.models.spec import AUDIO, AUDIO_TIMES, VIDEO, VIDEO_TIMES, NetworkSpec

if TYPE_CHECKING:
    from cast_ray.config import RunConfig

__all__ = [
    "MEDIA_COLUMNS",
    "ROW_COLUMNS",
    "VIDEO_ALONE",
    "ClipLoader",
    "Content",
    "Row",
    "Wanted",
    "clip_loader",
    "wanted_by",
]

READ_AHEAD = 8
"""Clips that a decode worker reads from remote storage while it decodes another."""

Row = dict[str, Any]
"""A row of the index, with its place in the order."""

Content = dict[str, NDArray[Any]]
"""What is loaded of one clip, by column."""

MEDIA_COLUMNS = ("frames", "video_times", "audio", "audio_columns", "audio_times")
"""Columns that are made of a clip's file, see `ClipLoader`."""

ROW_COLUMNS = (
    "clip_id",
    "labels",
    "shard",
    "place",
    "start_s",
    "stop_s",
    "reason",
    "num_frames",
    "fps",
    "sound_codec",
)
"""Index columns that loading itself needs."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a network takes of a clip; nothing else is decoded."""

    frames: bool
    frames_per_step: int | None = None
    """Frames of one time step, whose seconds are wanted; None: they are not."""
    sound_columns: int | None = None
    """Columns of the spectrogram; None: no sound is wanted."""
    sound_times: bool = False


VIDEO_ALONE = Wanted(frames=True)


def wanted_by(network: NetworkSpec) -> Wanted:
    """What a network takes of a clip."""
    return Wanted(
        frames=VIDEO in network.needs,
        frames_per_step=network.video.frames_per_step if VIDEO_TIMES in network.needs else None,
        sound_columns=network.audio.frames if AUDIO in network.needs else None,
        sound_times=AUDIO_TIMES in network.needs,
    )


@dataclass(frozen=True, kw_only=True)
class ClipLoader:
    """A block of index rows in, the same rows with their media out; the function that Ray Data maps.

    Columns, each only if wanted:

    * `frames` uint8 [B, (V,) T, S, S, 3];
    * `video_times` float32 [B, (V,) U, 2]: first and last second of every time step, by the video's mean frame rate;
    * `audio` int16 [B, (V,) samples], zeros after the end of the sound;
    * `audio_columns` [B, (V)]: columns of the spectrogram that have sound, 0 for a clip without sound;
    * `audio_times` float32 [B, (V,) 2]: first and last second of the whole piece, with what follows the end.

    Seconds count from the start of the clip. A clip that cannot be read keeps its place, with zeros everywhere, `valid`
    False and the `reason`, so that batches keep their size on every worker. It is for the consumer to leave it out of
    every sum and to count it. A readable clip with broken sound is a clip without sound, and has a `reason` too; where
    sound is all that is wanted, it is unreadable.
    """

    root: str
    """URI of the sharded dataset."""
    stored: MediaFormat = field(default_factory=MediaFormat)
    """How its media are stored."""
    view: View
    columns: tuple[str, ...]
    """Columns of the index rows to hand on beside `clip_id` and `labels`."""
    wanted: Wanted = VIDEO_ALONE
    decoder: Decoder | None = None
    """What decodes encoded video; None: see `usual_decoder`."""
    time_limit_s: float = 60.0
    """Seconds after which opening a clip, or reading its frames or sound, is given up."""

    def __call__(self, rows: pa.Table) -> dict[str, Any]:
        media = self._blank(rows.num_rows)
        valid: list[bool] = []
        reasons: list[str] = []
        listed = rows.select([*ROW_COLUMNS, *self.columns]).to_pylist()
        groups = (list(copies) for _, copies in itertools.groupby(listed, key=_same_clip))
        for copies, stored in self._read_ahead(groups):
            for content, reason in self.load(copies, stored):
                for name, value in (content or {}).items():
                    media[name][len(valid)] = value  # now, so that the clips are not in memory twice
                valid.append(content is not None)
                reasons.append(reason)
        return {
            "clip_id": np.array(rows["clip_id"].to_pylist(), dtype=object),
            "labels": np.array(rows["labels"].to_pylist(), dtype=np.int64),
            **media,
            "valid": np.array(valid),
            "reason": np.array(reasons, dtype=object),
            **{name: rows[name].to_numpy() for name in self.columns},
        }

    def _blank(self, count: int) -> Content:
        """Zeros, as they stand for a clip that cannot be read, for `count` clips."""
        wanted, views, sampling = self.wanted, (count, *self.view.views), self.view.sampling
        blank: Content = {}
        if wanted.frames:
            blank["frames"] = np.zeros((*views, *sampling.shape), np.uint8)
        if wanted.frames_per_step is not None:
            steps = sampling.num_frames // wanted.frames_per_step
            blank["video_times"] = np.zeros((*views, steps, 2), np.float32)
        if wanted.sound_columns is not None:
            blank["audio"] = np.zeros((*views, samples_for(wanted.sound_columns)), np.int16)
            blank["audio_columns"] = np.zeros(views, np.int64)
        if wanted.sound_times:
            blank["audio_times"] = np.zeros((*views, 2), np.float32)
        return blank

    def _read_ahead(self, groups: Iterable[list[Row]]) -> Iterator[tuple[list[Row], Media | None]]:
        """What `fetched` says of rows that are one clip.

        From remote storage the next clips are read while one is decoded: each costs a round trip.
        """
        if is_local(self.root):
            yield from map(self.fetched, groups)
            return
        waiting: deque[Future[tuple[list[Row], Media | None]]] = deque()
        with ThreadPoolExecutor(READ_AHEAD) as readers:
            for copies in groups:
                waiting.append(readers.submit(self.fetched, copies))
                if len(waiting) > READ_AHEAD:
                    yield waiting.popleft().result()
            for clip in waiting:
                yield clip.result()

    def fetched(self, copies: list[Row]) -> tuple[list[Row], Media | None]:
        """Rows that are one clip, and its media; None where there is nothing to read."""
        return copies, self._read(copies[0])

    def _read(self, row: Row) -> Media | None:
        if row.get("clip") == PADDING or row["num_frames"] is None:
            return None
        return read_media(self.root, row["shard"], row["place"], self._media_columns)

    def load(self, copies: Sequence[Row], media: Media | None) -> list[tuple[Content | None, str]]:
        """Content and reason of rows that are one clip, which is decoded once for all of them.

        A row needs `ROW_COLUMNS` without labels, shard and place, and perhaps which repetition it is. The content is
        None if the clip cannot be read.
        """
        row = copies[0]
        if media is None:
            return [(None, "" if row.get("clip") == PADDING else row["reason"])] * len(copies)
        occurrences = [Occurrence(row["clip_id"], copy.get("epoch", 0), copy.get("view", 0)) for copy in copies]
        contents: list[Content] = [{} for _ in copies]
        reason = ""
        try:
            if self.wanted.frames:
                contents = self._seen(media, row, occurrences)
            if self.wanted.sound_columns is not None:
                sound, reason = self._sound(media, row)
                for content, which in zip(contents, occurrences, strict=True):
                    content |= self._heard(sound, which, self.wanted.sound_columns)
        except Unreadable as error:
            return [(None, error.reason)] * len(copies)
        return [(content, reason) for content in contents]

    @functools.cached_property
    def _media_columns(self) -> tuple[str, ...]:
        columns = set()
        if self.wanted.frames:
            columns.add("frames" if self.stored.video == "jpeg" else "video")
        if self.wanted.sound_columns is not None and self.stored.sound != "none":
            columns.add("sound" if self.stored.sound == "16khz" else "video")
        return tuple(sorted(columns))

    def _seen(self, media: Media, row: Row, occurrences: Sequence[Occurrence]) -> list[Content]:
        video = open_media(
            media,
            num_frames=row["num_frames"],
            fps=row["fps"],
            decoder=self.decoder or usual_decoder(self.stored),
            time_limit_s=self.time_limit_s,
        )
        first, count = frame_window(video, row["start_s"], row["stop_s"])
        indices = [self.view.frame_indices(count, which) for which in occurrences]
        frames = video.frames(first + np.concatenate([each.reshape(-1) for each in indices]))
        parts = np.split(frames, len(occurrences))
        contents: list[Content] = [
            {"frames": self.view.crop(part, which)} for part, which in zip(parts, occurrences, strict=True)
        ]
        if self.wanted.frames_per_step is not None:
            for content, chosen in zip(contents, indices, strict=True):
                times = _step_times(row["fps"], chosen, self.wanted.frames_per_step)
                if self.view.views:  # one row per temporal view, for all its crops
                    times = np.repeat(times, self.view.views[0] // len(times), axis=0)
                content["video_times"] = times
        return contents

    def _sound(self, media: Media, row: Row) -> tuple[Samples, str]:
        """The clip's sound, empty if it has none, and why it is empty if it should not be."""
        silence = np.zeros(0, np.int16)
        try:
            if row["reason"]:  # found in preparation
                raise UnreadableSound(row["reason"].removeprefix(WITHOUT_SOUND))
            if not row["sound_codec"]:
                return silence, ""
            if media.sound is not None:  # this clip's alone, whatever its window in the video is
                sound = read_sound(media.sound, time_limit_s=self.time_limit_s)
            else:
                sound = read_sound(media.video or b"", row["start_s"], row["stop_s"], time_limit_s=self.time_limit_s)
        except UnreadableSound as error:
            if not self.wanted.frames:
                raise
            return silence, WITHOUT_SOUND + error.reason
        return silence if sound is None else sound, ""

    def _heard(self, sound: Samples, which: Occurrence, columns: int) -> Content:
        length = samples_for(columns)
        starts = self.view.sound_starts(len(sound), length, which)
        pieces = [sound[start : start + length] for start in starts.reshape(-1)]
        padded = np.stack([np.pad(piece, (0, length - len(piece))) for piece in pieces])
        whole = np.array([max(0, (len(piece) - WINDOW) // HOP + 1) for piece in pieces])
        content: Content = {
            "audio": padded.reshape(*starts.shape, length),
            "audio_columns": whole.reshape(starts.shape),
        }
        if self.wanted.sound_times:
            content["audio_times"] = (np.stack([starts, starts + length], axis=-1) / SAMPLE_RATE).astype(np.float32)
        return content


def clip_loader(dataset: ShardedDataset, config: RunConfig, view: View, columns: tuple[str, ...] = ()) -> ClipLoader:
    """The loader of a dataset's clips for the network of a run."""
    return ClipLoader(
        root=dataset.uri,
        stored=dataset.format,
        view=view,
        columns=columns,
        wanted=wanted_by(spec_of(config.model)),
        decoder=config.data.decoder,
        time_limit_s=config.data.decode_time_limit_s,
    )


def _same_clip(row: Row) -> tuple[Any, ...]:
    """Repetitions of a clip follow one another in an epoch, see `cast_ray.data.order`."""
    return row["clip_id"], row.get("epoch"), row.get("clip") == PADDING


def _step_times(fps: float, indices: NDArray[np.int64], frames_per_step: int) -> NDArray[np.float32]:
    """First and last second [..., U, 2] of the time steps of frames [..., T], which count from the clip's first one."""
    if fps <= 0:
        raise UnreadableVideo("container states no frame rate, so frames cannot be turned into seconds")
    steps = indices.reshape(*indices.shape[:-1], -1, frames_per_step)
    return (np.stack([steps[..., 0], steps[..., -1] + 1], axis=-1) / fps).astype(np.float32)
