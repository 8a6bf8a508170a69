"""How a clip's source file becomes what is stored of it."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from cast_ray.data.cut import Piece, cut, without_sound
from cast_ray.data.decode import UnreadableVideo, frame_window, guarded, open_video
from cast_ray.data.decoders.container import open_container
from cast_ray.data.decoders.listing import list_packets
from cast_ray.data.manifest import Clip
from cast_ray.data.media import WITHOUT_SOUND, Facts, Media, MediaFormat, StoredClip, check_size
from cast_ray.data.ranges import encoded_size
from cast_ray.data.recording import Recording
from cast_ray.data.sound import UnreadableSound, read_sound
from cast_ray.data.transcode import decoded, encode_flac, jpegs, short_gop, upright_size
from cast_ray.errors import UserError

__all__ = ["stored_clips"]

VERIFIED_FRAMES = 16
USUAL_RATE = 30.0
"""Frames per second that make a clip's minutes: work goes by frames, and rates that files state may be wrong."""
MICROSECONDS = 1_000_000


def stored_clips(clips: Sequence[Clip], media_format: MediaFormat) -> Iterator[StoredClip]:
    """The clips as they are stored, in order, one at a time; one that cannot be used says why.

    Clips that follow one another and lie in one file share its opening; of a file of which only parts are wanted, only
    these are read.

    Raises:
        UserError: a video file cannot be read at all.
    """
    for uri, same in itertools.groupby(clips, key=lambda clip: clip.uri):
        recording = Recording(uri)
        for clip in same:
            yield _attempt(recording, clip, media_format)


def _attempt(recording: Recording, clip: Clip, media_format: MediaFormat) -> StoredClip:
    try:
        piece = _piece(recording, clip, media_format)
        limited = replace(
            media_format, time_limit_s=_limit_s(media_format, (piece.first + piece.num_frames) / USUAL_RATE)
        )
        return guarded(lambda: _stored(piece, clip, limited), limited.time_limit_s)
    except UnreadableVideo as error:
        if isinstance(error.__cause__, UserError):
            raise error.__cause__ from None
        recording.check()
        recording.close()
        return StoredClip(clip=clip, reason=error.reason)


def _is_whole(clip: Clip) -> bool:
    return clip.start_s is None and clip.stop_s is None


def _limit_s(media_format: MediaFormat, clip_s: float) -> float:
    return media_format.time_limit_s * max(clip_s / 60, 1.0)


def _piece(recording: Recording, clip: Clip, media_format: MediaFormat) -> Piece:
    limit_s = media_format.time_limit_s
    if _is_whole(clip):
        data = recording.whole()  # a slow storage does not count as a slow decoder
        return guarded(lambda: _whole(data), limit_s)
    container = guarded(recording.container, limit_s)
    stop_s = min(clip.stop_s or math.inf, (container.duration or 0) / MICROSECONDS)
    return guarded(
        lambda: cut(container, clip.start_s, clip.stop_s, sound=media_format.sound != "none"),
        _limit_s(media_format, stop_s - (clip.start_s or 0.0)),
    )


def _stored(piece: Piece, clip: Clip, media_format: MediaFormat) -> StoredClip:
    media, facts = _video(piece, media_format)
    sound, codec, reason = _sound(piece, media_format)
    original = media_format.video == "original"
    if original and media_format.sound == "16khz" and not _is_whole(clip):
        media = replace(media, video=without_sound(piece.data))
    media = replace(media, sound=sound)
    for what, values in (("video", [media.video or b""]), ("frames", media.frames or ()), ("sound", [sound or b""])):
        check_size(what, encoded_size(values))
    return StoredClip(
        clip=clip,
        media=media,
        facts=replace(facts, sound_codec=codec),
        start_s=piece.start_s if original else None,
        stop_s=piece.stop_s if original else None,
        reason=reason,
    )


def _whole(data: bytes) -> Piece:
    if not data:
        raise UnreadableVideo("file is empty")
    listing = list_packets(data)
    return Piece(data=data, first=0, num_frames=listing.shown, fps=listing.fps, start_s=None, stop_s=None)


def _video(piece: Piece, media_format: MediaFormat) -> tuple[Media, Facts]:
    """What is stored of the frames; sound is added later."""
    listing = list_packets(piece.data)
    frames = decoded(listing, piece.first, piece.num_frames)
    earliest = next(frames)
    width, height = upright_size(earliest)
    codec = listing.codec_context.codec.canonical_name
    source = f"{codec} {width}x{height}"
    frames = itertools.chain([earliest], frames)
    if media_format.video == "short-gop":
        video, width, height = short_gop(frames, piece.fps, media_format)
        media, codec = Media(video=video), "h264"
    elif media_format.video == "jpeg":
        files, width, height = jpegs(frames, piece.num_frames, piece.fps, media_format)
        media, codec = Media(frames=files), "jpeg"
    else:
        media = Media(video=piece.data)
        if media_format.verify:
            _verify(piece, frames, media_format.time_limit_s)
    return media, Facts(
        num_frames=piece.num_frames,
        fps=piece.fps,
        width=width,
        height=height,
        video_codec=codec,
        sound_codec="",
        source=source,
    )


def _verify(piece: Piece, frames: Iterator[Any], time_limit_s: float) -> None:
    """Decode all `frames`, and then the first one, the last, and some between as training would."""
    sizes = dict.fromkeys(upright_size(frame) for frame in frames)
    if len(sizes) > 1:
        raise UnreadableVideo(f"frames differ in size: {', '.join(f'{width}x{height}' for width, height in sizes)}")
    video = open_video(piece.data, time_limit_s=time_limit_s)
    first, count = frame_window(video, piece.start_s, piece.stop_s)
    video.frames(first + np.unique(np.linspace(0, count - 1, VERIFIED_FRAMES + 2).round().astype(np.int64)))


def _sound(piece: Piece, media_format: MediaFormat) -> tuple[bytes | None, str, str]:
    """The sound that is stored by itself, the codec of the stored sound, and why there is none if there should be."""
    if media_format.sound == "none":
        return None, "", ""
    if media_format.sound == "original":
        return None, _sound_codec(piece.data), ""
    try:
        begin_s, end_s = piece.sound_start_s, piece.sound_stop_s
        samples = read_sound(piece.data, begin_s, end_s, time_limit_s=media_format.time_limit_s)
    except UnreadableSound as error:
        return None, "", WITHOUT_SOUND + error.reason
    if samples is None or len(samples) == 0:  # no track, or none here
        return None, "", ""
    return encode_flac(samples), "flac", ""


def _sound_codec(data: bytes) -> str:
    """The codec of the sound that `read_sound` reads; empty if there is none."""
    with open_container(io.BytesIO(data)) as container:
        stream = container.streams.best("audio", related=container.streams.best("video"))
        return "" if stream is None else str(stream.codec_context.codec.canonical_name)
