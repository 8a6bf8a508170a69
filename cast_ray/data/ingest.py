"""How a clip's source file becomes what is stored of it."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from cast_ray.data.cut import Piece, cut, without_sound
from cast_ray.data.decode import UnreadableVideo, frame_window, guarded, open_video
from cast_ray.data.decoders.listing import list_packets
from cast_ray.data.manifest import Clip
from cast_ray.data.media import WITHOUT_SOUND, Facts, Media, MediaFormat, StoredClip
from cast_ray.data.recording import Recording
from cast_ray.data.sound import UnreadableSound, read_sound
from cast_ray.data.transcode import decoded, encode_flac, jpegs, short_gop, upright_size
from cast_ray.errors import UserError

__all__ = ["stored_clips"]

VERIFIED_FRAMES = 16


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
    if _is_whole(clip):
        recording.whole()  # a slow storage does not count as a slow decoder
    try:
        return guarded(lambda: _stored(recording, clip, media_format), media_format.time_limit_s)
    except UnreadableVideo as error:
        if isinstance(error.__cause__, UserError):
            raise error.__cause__ from None
        recording.check()
        recording.close()
        return StoredClip(clip=clip, reason=error.reason)


def _is_whole(clip: Clip) -> bool:
    return clip.start_s is None and clip.stop_s is None


def _stored(recording: Recording, clip: Clip, media_format: MediaFormat) -> StoredClip:
    piece = _whole(recording) if _is_whole(clip) else _part(recording, clip, media_format)
    media, facts = _video(piece, media_format)
    sound, codec, reason = _sound(piece, media_format)
    original = media_format.video == "original"
    if original and media_format.sound == "16khz" and not _is_whole(clip):
        media = replace(media, video=without_sound(piece.data))
    return StoredClip(
        clip=clip,
        media=replace(media, sound=sound),
        facts=replace(facts, sound_codec=codec),
        start_s=piece.start_s if original else None,
        stop_s=piece.stop_s if original else None,
        reason=reason,
    )


def _whole(recording: Recording) -> Piece:
    data = recording.whole()
    if not data:
        raise UnreadableVideo("file is empty")
    listing = list_packets(data)
    return Piece(data=data, first=0, num_frames=listing.shown, fps=listing.fps, start_s=None, stop_s=None)


def _part(recording: Recording, clip: Clip, media_format: MediaFormat) -> Piece:
    return cut(recording.container(), clip.start_s, clip.stop_s, sound=media_format.sound != "none")


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
            _verify(piece, media_format.time_limit_s)
    return media, Facts(
        num_frames=piece.num_frames,
        fps=piece.fps,
        width=width,
        height=height,
        video_codec=codec,
        sound_codec="",
        source=source,
    )


def _verify(piece: Piece, time_limit_s: float) -> None:
    """Decode the first frame, the last, and some between, as training would."""
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
        samples = read_sound(piece.data, piece.start_s, piece.stop_s, time_limit_s=media_format.time_limit_s)
    except UnreadableSound as error:
        return None, "", WITHOUT_SOUND + error.reason
    if samples is None or len(samples) == 0:  # no track, or none here
        return None, "", ""
    return encode_flac(samples), "flac", ""


def _sound_codec(data: bytes) -> str:
    """The codec of the sound that `read_sound` reads; empty if there is none."""
    import av

    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.best("audio", related=container.streams.best("video"))
        return "" if stream is None else str(stream.codec_context.codec.canonical_name)
