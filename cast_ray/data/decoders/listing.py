"""What a container says about its video before anything is decoded: the packets of its best stream, by PyAV."""

from __future__ import annotations

import io
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cast_ray.data.decoders.container import open_container
from cast_ray.data.decoders.guard import UnreadableVideo

__all__ = ["Listing", "list_packets"]

INDEXED = frozenset({"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"})
"""Containers (FFmpeg's names) that decord and torchcodec find their way in; in MPEG-TS, AVI and ASF they get lost."""
PIXEL_FORMATS = frozenset({"yuv420p", "yuvj420p"})
"""8 bits, 4:2:0; of others the back ends' FFmpegs make other colours, up to 68 levels apart."""
UNKNOWN_TO_DECORD = frozenset({"av1", "libdav1d"})
WIDTHS_THAT_DECORD_FAILS_ON = (16, 24, 48, 72)
"""Of frames in pixels, as tried with all even widths from 16 to 138."""


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The best video stream of a file, taken out of its container."""

    container: str
    """FFmpeg's name of the container format."""
    packets: Sequence[Any]
    """`av.Packet`s with content, in decoding order; about as large as the file."""
    codec_context: Any
    """`av.VideoCodecContext` that decodes them; usable without the container."""
    fps: float
    """Average frames per second, 0.0 where the container does not say."""

    @property
    def codec(self) -> str:
        return str(self.codec_context.name)

    @property
    def shown(self) -> int:
        """Packets whose frames a player shows; it hides those before a cut at no key frame (edit list)."""
        return sum(not packet.is_discard for packet in self.packets)

    @property
    def times_known(self) -> bool:
        """Whether packets have true, distinct presentation times; AVI has none, and FFmpeg makes up rising ones."""
        times = [packet.pts for packet in self.packets]
        if None in times or len(set(times)) < len(times):
            return False
        return not self.codec_context.has_b_frames or any(late > early for late, early in itertools.pairwise(times))

    @property
    def plain(self) -> bool:
        """Whether decord and torchcodec give the frames that PyAV gives: of other files they were seen not to.

        In a plain file no frame is hidden, none is shown before the key frame that it follows in the file, and colours
        are 8 bits in 4:2:0.
        """
        return (
            self.container in INDEXED
            and self.codec not in UNKNOWN_TO_DECORD
            and self.codec_context.pix_fmt in PIXEL_FORMATS
            and self.codec_context.width not in WIDTHS_THAT_DECORD_FAILS_ON
            and self.shown == len(self.packets)
            and self.times_known
            and self._groups_are_closed()
        )

    def _groups_are_closed(self) -> bool:
        if not self.packets[0].is_keyframe:
            return False
        entered = self.packets[0].pts
        for packet in self.packets:
            if packet.is_keyframe:
                entered = packet.pts
            if packet.pts < entered:
                return False
        return True


def list_packets(data: bytes) -> Listing:
    """Read the packets of the best video stream.

    Raises:
        UnreadableVideo: the file is of no accepted format, there is no video stream, or it has no frames.
        av.FFmpegError: FFmpeg cannot read the file.
    """
    with open_container(io.BytesIO(data)) as container:
        stream = container.streams.best("video")
        if stream is None:
            raise UnreadableVideo("file has no video stream")
        rate = stream.average_rate
        listing = Listing(
            container=container.format.name,
            packets=[packet for packet in container.demux(stream) if packet.size],
            codec_context=stream.codec_context,
            fps=float(rate) if rate else 0.0,
        )
    if listing.shown == 0:
        raise UnreadableVideo("video has no frames")
    return listing
