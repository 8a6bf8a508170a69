"""How torchcodec decodes: with the FFmpeg libraries of the machine, exact about which frame is which."""

from __future__ import annotations

from cast_ray.data.decoders.guard import UnreadableVideo
from cast_ray.data.decoders.video import Frames, Source

__all__ = ["open_torchcodec"]


def open_torchcodec(data: bytes, fps: float) -> Source:
    """Open a file; frames that the container hides are not counted."""
    from torchcodec.decoders import VideoDecoder  # type: ignore[attr-defined]

    # "approximate" would trust the container's frame count and rate, which are missing or wrong in some files.
    decoder = VideoDecoder(data, seek_mode="exact", num_ffmpeg_threads=1, dimension_order="NHWC")

    def read(indices: list[int]) -> Frames:
        try:
            frames: Frames = decoder.get_frames_at(indices).data.numpy()
        except RuntimeError as error:
            if "pre-allocated tensor of shape" in str(error):
                raise UnreadableVideo("frames differ in size") from error
            raise
        return frames

    return Source(num_frames=len(decoder), fps=fps, read=read)
