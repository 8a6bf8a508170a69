"""What happens to a clip on a decode worker: fetch, decode, and cut out what the network takes of it.

Shapes: B clips of a block, V views, T frames, U time steps, S x S pixels, F label fields.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cast_ray.data.decode import Unreadable, UnreadableVideo, Video, frame_window, open_video
from cast_ray.data.order import PADDING
from cast_ray.data.shards import read_media
from cast_ray.data.sound import HOP, SAMPLE_RATE, WINDOW, Samples, UnreadableSound, read_sound, samples_for
from cast_ray.data.views import View
from cast_ray.models.spec import AUDIO, AUDIO_TIMES, VIDEO, VIDEO_TIMES, NetworkSpec

__all__ = ["MEDIA_COLUMNS", "VIDEO_ALONE", "ClipLoader", "Wanted", "wanted_by"]

Content = dict[str, NDArray[Any]]
"""What is loaded of one clip, by column."""

MEDIA_COLUMNS = ("frames", "video_times", "audio", "audio_columns", "audio_times")
"""Columns that are made of a clip's file, see `ClipLoader`."""

_NEEDED = ("clip_id", "labels", "shard", "row", "start_s", "stop_s")
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
    view: View
    columns: tuple[str, ...]
    """Columns of the index rows to hand on beside `clip_id` and `labels`."""
    wanted: Wanted = VIDEO_ALONE

    def __call__(self, rows: pa.Table) -> dict[str, Any]:
        loaded = [self._load(row) for row in rows.select([*_NEEDED, *self.columns]).to_pylist()]
        contents = [content for content, _ in loaded]
        blank = self._blank()
        return {
            "clip_id": np.array(rows["clip_id"].to_pylist(), dtype=object),
            "labels": np.array(rows["labels"].to_pylist(), dtype=np.int64),
            **{name: np.stack([(content or blank)[name] for content in contents]) for name in blank},
            "valid": np.array([content is not None for content in contents]),
            "reason": np.array([reason for _, reason in loaded], dtype=object),
            **{name: rows[name].to_numpy() for name in self.columns},
        }

    def _blank(self) -> Content:
        """What stands for a clip that cannot be read."""
        wanted, views, sampling = self.wanted, self.view.views, self.view.sampling
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

    def _load(self, row: dict[str, Any]) -> tuple[Content | None, str]:
        if row.get("clip") == PADDING:
            return None, ""
        (data,) = read_media(self.root, [row["shard"]], [row["row"]])
        content: Content = {}
        reason = ""
        try:
            if self.wanted.frames:
                content = self._seen(data, row)
            if self.wanted.sound_columns is not None:
                sound, reason = self._sound(data, row)
                content |= self._heard(sound, row, self.wanted.sound_columns)
        except Unreadable as error:
            return None, error.reason
        return content, reason

    def _seen(self, data: bytes, row: dict[str, Any]) -> Content:
        clip_id, epoch = row["clip_id"], row.get("epoch", 0)
        video = open_video(data)
        first, count = frame_window(video, row["start_s"], row["stop_s"])
        indices = self.view.frame_indices(count, clip_id, epoch)
        content: Content = {
            "frames": self.view.crop(video.frames(first + indices.reshape(-1)), clip_id, epoch),
        }
        if self.wanted.frames_per_step is not None:
            times = _step_times(video, indices, self.wanted.frames_per_step)
            if self.view.views:  # one row per temporal view, for all its crops
                times = np.repeat(times, self.view.views[0] // len(times), axis=0)
            content["video_times"] = times
        return content

    def _sound(self, data: bytes, row: dict[str, Any]) -> tuple[Samples, str]:
        """The clip's sound, empty if it has none, and why it is empty if it should not be."""
        try:
            sound = read_sound(data, row["start_s"], row["stop_s"])
        except UnreadableSound as error:
            if not self.wanted.frames:
                raise
            return np.zeros(0, np.int16), f"used without its sound: {error.reason}"
        return np.zeros(0, np.int16) if sound is None else sound, ""

    def _heard(self, sound: Samples, row: dict[str, Any], columns: int) -> Content:
        length = samples_for(columns)
        starts = self.view.sound_starts(len(sound), length, row["clip_id"], row.get("epoch", 0))
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


def _step_times(video: Video, indices: NDArray[np.int64], frames_per_step: int) -> NDArray[np.float32]:
    """First and last second [..., U, 2] of the time steps of frames [..., T], which count from the clip's first one."""
    if video.fps <= 0:
        raise UnreadableVideo("container states no frame rate, so frames cannot be turned into seconds")
    steps = indices.reshape(*indices.shape[:-1], -1, frames_per_step)
    return (np.stack([steps[..., 0], steps[..., -1] + 1], axis=-1) / video.fps).astype(np.float32)
