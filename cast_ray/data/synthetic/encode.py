"""How frames and sound become an mp4 file: H.264 and AAC, the same bytes for the same input."""

from __future__ import annotations

import io
from fractions import Fraction
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from cast_ray.data.synthetic.sound import SAMPLE_RATE

__all__ = ["encode_mp4"]

# Presets slower than superfast look ahead, and x264's look-ahead reads memory that it never wrote when the frame is
# this small: the bytes then differ from run to run. More threads than one change the bytes too.
VIDEO_OPTIONS = {"preset": "ultrafast", "crf": "26", "threads": "1", "flags": "+bitexact"}
AUDIO_OPTIONS = {"aac_coder": "fast", "flags": "+bitexact"}
CONTAINER_OPTIONS = {"fflags": "+bitexact"}
AUDIO_BIT_RATE = 24_000
SAMPLES_PER_PACKET = 1024

# Rows Y, Cb, Cr of ITU-R BT.601 for RGB in 0..255 and video range, which is what players assume for small frames.
RGB_TO_YUV = np.array([[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]]) / 255
RGB_TO_YUV = RGB_TO_YUV.astype(np.float32)


def encode_mp4(frames: NDArray[np.uint8], *, frames_per_second: int, sound: NDArray[np.int16] | None) -> bytes:
    """Encode frames [T, H, W, 3] (H and W divisible by 4) and one sound channel [samples] at `SAMPLE_RATE`.

    With `sound` None the file has no sound track.
    """
    target = io.BytesIO()
    with av.open(target, "w", format="mp4", options=CONTAINER_OPTIONS) as container:
        video = container.add_stream("libx264", rate=frames_per_second, options=VIDEO_OPTIONS)
        video.height, video.width = frames.shape[1:3]
        video.pix_fmt = "yuv420p"
        video.time_base = Fraction(1, frames_per_second)
        audio = None if sound is None else _sound_track(container)
        for index, planes in enumerate(_to_yuv420(frames)):
            picture = av.VideoFrame.from_ndarray(planes, format="yuv420p")
            picture.pts = index
            container.mux(video.encode(picture))
        container.mux(video.encode(None))
        if audio is not None and sound is not None:
            _mux_sound(container, audio, sound)
    return target.getvalue()


def _sound_track(container: Any) -> Any:
    # Made before anything is written: the header lists the tracks.
    track = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono", options=AUDIO_OPTIONS)
    track.bit_rate = AUDIO_BIT_RATE
    return track


def _mux_sound(container: Any, track: Any, sound: NDArray[np.int16]) -> None:
    for start in range(0, len(sound), SAMPLES_PER_PACKET):
        packet = sound[None, start : start + SAMPLES_PER_PACKET]
        samples = av.AudioFrame.from_ndarray(packet, format="s16", layout="mono")
        samples.sample_rate = SAMPLE_RATE
        samples.pts = start
        container.mux(track.encode(samples))
    container.mux(track.encode(None))


def _to_yuv420(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Planes [T, 3H/2, W] of frames [T, H, W, 3]: Y, then Cb and Cr at half the resolution."""
    num_frames, height, width, _ = frames.shape
    planes = np.empty((num_frames, height * 3 // 2, width), np.uint8)
    pixels = frames.astype(np.float32)
    planes[:, :height] = pixels @ RGB_TO_YUV[0] + 16.5
    rows = pixels[:, ::2] + pixels[:, 1::2]
    mean = 0.25 * (rows[:, :, ::2] + rows[:, :, 1::2])
    chroma = mean @ RGB_TO_YUV[1:].T + 128.5
    planes[:, height:] = np.moveaxis(chroma, -1, 1).reshape(num_frames, height // 2, width)
    return planes
