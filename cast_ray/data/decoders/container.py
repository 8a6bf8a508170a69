"""Which files are opened as videos: FFmpeg looks into no others, and a file cannot make it open anything else.

FFmpeg takes a file for what its bytes say, whatever its name: a text that begins like a playlist makes it read other
files, a session description makes it listen on a port. So the formats are listed here, and no protocol is allowed.
decord and torchcodec have no such list: they get a file only after it was opened here (`Listing.plain`).
"""

from __future__ import annotations

from typing import Any

from cast_ray.data.decoders.guard import UnreadableVideo

__all__ = ["ACCEPTED", "open_container"]

ACCEPTED = ("mov", "matroska", "avi", "mpegts", "mpeg", "mpegvideo", "asf", "flv", "gif", "ogg", "wav", "flac")
"""FFmpeg's names; mov: MP4 and 3GP too, matroska: WebM too, flac: the sound that is stored by itself."""


def open_container(source: Any, **options: Any) -> Any:
    """An `av` container to read from.

    Args:
        source: file object; a path would let FFmpeg open what it names.
        options: of `av.open`.

    Raises:
        UnreadableVideo: the file is of a format that is not `ACCEPTED`.
        av.FFmpegError: FFmpeg cannot read the file.
    """
    import av

    limits = {"format_whitelist": ",".join(ACCEPTED), "protocol_whitelist": ""}
    try:
        return av.open(source, "r", options=limits, **options)
    except av.error.ArgumentError as error:
        raise UnreadableVideo(
            "not a video container that is accepted: mp4, mov, mkv, webm, avi, ts, flv ..."
        ) from error
