"""How PyAV decodes single frames of a stream without decoding all of it.

A frame needs the key frame before it and the reference frames between. So whole groups of pictures without a wanted
frame are passed over, and frames that no other needs (non-reference frames) are dropped unless they are wanted. Which
packet holds which frame follows from the presentation times. Where those are missing or doubtful, everything is
decoded and counted.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from cast_ray.data.decoders.guard import UnreadableVideo
from cast_ray.data.decoders.listing import Listing
from cast_ray.data.decoders.video import Frames, Source

__all__ = ["open_pyav"]

UNWANTED = {
    **dict.fromkeys(("h264", "hevc", "mpeg2video", "mpeg4", "vp8", "vp9"), "NONREF"),
    **dict.fromkeys(("libdav1d", "mjpeg"), "DEFAULT"),
}
"""What the decoder may drop (FFmpeg's `skip_frame`) while it is given packets with no wanted frame, by codec.

These are the codecs whose frames are tested to be the same whether or not others are left out; of the rest all are
decoded. dav1d takes the setting of the first packet for all, so that it may drop nothing.
"""


def open_pyav(listing: Listing) -> Source:
    """Decode the packets of `listing`, which stays in memory for as long as the source does."""
    listing.codec_context.thread_count = 1
    return Source(num_frames=listing.shown, fps=listing.fps, read=functools.partial(_read, listing))


def _read(listing: Listing, indices: list[int]) -> Frames:
    keys = indices
    if listing.times_known:
        shown = sorted(packet.pts for packet in listing.packets if not packet.is_discard)
        keys = [shown[index] for index in indices]
        if listing.codec in UNWANTED:
            frames = _Frames(keys)
            if _decode_parts(listing, frames):
                return frames.pixels
    frames = _Frames(keys)
    _decode_all(listing, frames)
    if frames.missing:
        raise UnreadableVideo(f"{frames.missing} of {len(indices)} frames could not be decoded")
    return frames.pixels


class _Frames:
    """The wanted frames, each under a key, and those of them that have come out of the decoder so far."""

    def __init__(self, keys: Sequence[int]) -> None:
        from av.video.reformatter import VideoReformatter

        self.pixels: Frames = np.empty((0, 0, 0, 3), np.uint8)
        self._rows = {key: row for row, key in enumerate(keys)}
        self._rest = set(keys)
        self._reformatter = VideoReformatter()

    @property
    def missing(self) -> int:
        return len(self._rest)

    def __contains__(self, key: int) -> bool:
        return key in self._rows

    def offer(self, key: int, picture: Any) -> None:
        """Keep `picture` (an `av.VideoFrame`) as RGB, if it is wanted and the first one with this key."""
        if key not in self._rest:
            return
        rgb = self._reformatter.reformat(picture, format="rgb24", threads=1).to_ndarray()
        upright = np.rot90(rgb, k=round(picture.rotation / 90))
        if not self.pixels.size:
            self.pixels = np.empty((len(self._rows), *upright.shape), np.uint8)
        if upright.shape != self.pixels.shape[1:]:
            (height, width), (first_height, first_width) = upright.shape[:2], self.pixels.shape[1:3]
            raise UnreadableVideo(f"frames differ in size: {first_width}x{first_height}, {width}x{height}")
        self.pixels[self._rows[key]] = upright
        self._rest.remove(key)


def _decode_parts(listing: Listing, frames: _Frames) -> bool:
    """Offer `frames`, whose keys are presentation times, at least the pictures that they want.

    Returns:
        Whether all came, each decoded from a key frame on. Periodic intra refresh has no key frames: what is marked as
        one there is a picture that becomes whole in the course of the next ones.
    """
    from av.video.frame import PictureType

    context = listing.codec_context
    droppable = UNWANTED[listing.codec]
    for start, stop in _runs(listing.packets, frames):
        entrance = listing.packets[start].pts
        entered = start == 0
        context.flush_buffers()
        for packet in (*listing.packets[start:stop], None):
            if packet is not None:
                keep = packet.is_keyframe or packet.pts in frames
                context.skip_frame = "DEFAULT" if keep else droppable
            for picture in context.decode(packet):
                entered = entered or (picture.pts == entrance and picture.pict_type == PictureType.I)
                frames.offer(picture.pts, picture)
        if not entered:
            return False
    return not frames.missing


def _runs(packets: Sequence[Any], frames: _Frames) -> list[tuple[int, int]]:
    """Ranges of packets, first to one after the last, that have to be decoded for the wanted pictures."""
    runs: list[tuple[int, int]] = []
    keys: list[int] = []
    for position, packet in enumerate(packets):
        if packet.is_keyframe:
            keys.append(position)
        if packet.pts in frames:
            # Pictures shown before the key frame that they follow in the file need the group before it too (open GOP).
            start = next((key for key in reversed(keys) if packets[key].pts <= packet.pts), 0)
            while runs and start <= runs[-1][1]:
                start = min(start, runs.pop()[0])
            runs.append((start, position + 1))
    return runs


def _decode_all(listing: Listing, frames: _Frames) -> None:
    """Offer `frames` all pictures, until they have what they want; where times are not known, keys are indices."""
    context = listing.codec_context
    context.flush_buffers()
    context.skip_frame = "DEFAULT"
    known = listing.times_known
    index = itertools.count()
    for packet in (*listing.packets, None):
        for picture in context.decode(packet):
            frames.offer(picture.pts if known else next(index), picture)
        if not frames.missing:
            return
