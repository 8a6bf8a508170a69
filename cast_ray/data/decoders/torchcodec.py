"""How torchcodec decodes: with the FFmpeg libraries of the machine, exact about which frame is which."""

from __future__ import annotations

from cast_ray.data.decoders.video import Source

__all__ = ["open_torchcodec"]


def open_torchcodec(data: bytes, fps: float) -> Source:
    """Open a file; frames that the container hides are not counted."""
    from torchcodec.decoders import VideoDecoder  # type: ignore[attr-defined]

    # "approximate" would trust the container's frame count and rate, which are missing or wrong in some files.
    decoder = VideoDecoder(data, seek_mode="exact", num_ffmpeg_threads=1, dimension_order="NHWC")
    return Source(num_frames=len(decoder), fps=fps, read=lambda indices: decoder.get_frames_at(indices).data.numpy())
