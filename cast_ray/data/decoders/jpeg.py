"""How stored JPEG frames become a video, and how a frame becomes a JPEG: libjpeg-turbo in both directions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cast_ray.data.decoders.guard import UnreadableVideo
from cast_ray.data.decoders.video import Frames, Source, Video

__all__ = ["encode_jpeg", "open_jpegs"]


def open_jpegs(frames: Sequence[bytes], *, num_frames: int, fps: float, time_limit_s: float = 60.0) -> Video:
    """Open a clip that is stored as JPEG frames, evenly taken from a source with `num_frames` frames.

    The video counts frames as the source does: its frame i is stored frame i * len(frames) // num_frames. So samplers
    choose the same moments as from the source, and only the frames asked for are decoded, each once.

    Args:
        frames: JPEG files of equal size.
        num_frames: frames of the source.
        fps: frames per second of the source, 0.0 if unknown.
        time_limit_s: seconds after which one call of `Video.frames` is given up.

    Raises:
        UnreadableVideo: there are no frames.
    """
    if not frames or num_frames < 1:
        raise UnreadableVideo("video has no frames")

    def read(indices: list[int]) -> Frames:
        stored, inverse = np.unique([index * len(frames) // num_frames for index in indices], return_inverse=True)
        decoded = _decode([frames[index] for index in stored])
        return decoded if len(stored) == len(indices) else decoded[inverse]

    return Video(Source(num_frames=num_frames, fps=fps, read=read), time_limit_s=time_limit_s)


def encode_jpeg(frame: NDArray[np.uint8], quality: int) -> bytes:
    """A frame [H, W, 3] as a JPEG file; `quality` from 1 to 100."""
    import simplejpeg

    return simplejpeg.encode_jpeg(np.ascontiguousarray(frame), quality=quality, colorsubsampling="420")


def _decode(files: Sequence[bytes]) -> Frames:
    import simplejpeg

    frames: Frames | None = None
    for index, file in enumerate(files):
        if not file:
            raise UnreadableVideo("a stored JPEG frame is empty")
        try:
            if frames is None:
                height, width, *_ = simplejpeg.decode_jpeg_header(file)
                frames = np.empty((len(files), height, width, 3), np.uint8)
            decoded = simplejpeg.decode_jpeg(file, buffer=frames[index])
        except ValueError as error:
            raise UnreadableVideo(f"a stored JPEG frame is broken: {str(error).splitlines()[0][:120]}") from error
        if decoded.shape != frames.shape[1:]:
            raise UnreadableVideo("stored JPEG frames differ in size")
    if frames is None:
        raise UnreadableVideo("video has no frames")
    return frames
