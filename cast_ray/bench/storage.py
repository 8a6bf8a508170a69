"""What the ways of storing a clip cost and keep: bytes, preparation, decoding, likeness to the source; as Markdown.

Usage: python -m cast_ray.bench.storage VIDEO...
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from rich.console import Console

from cast_ray.data.decode import Video, open_media, usual_decoder
from cast_ray.data.decoders.listing import list_packets
from cast_ray.data.decoders.video import Frames
from cast_ray.data.ingest import stored_clips
from cast_ray.data.manifest import TRAIN, Clip
from cast_ray.data.media import MediaFormat, StoredClip
from cast_ray.data.transcode import decoded, kept_frames, shrunk
from cast_ray.errors import UserError

__all__ = ["main"]

FRAMES = 16
REPEATS = 5
HEADER = "| {} | stored as | video KB | sound KB | preparation s | 16 frames ms | PSNR dB | SSIM |\n" + "|---" * 8 + "|"

Result = TypeVar("Result")


def formats() -> Iterator[tuple[str, MediaFormat]]:
    """What is measured."""
    yield "original, sound inside", MediaFormat()
    yield "original, sound FLAC", MediaFormat(sound="16khz")
    for gop, crf in itertools.product((4, 8, 16), (18, 20, 23)):
        yield f"short-gop {gop}, crf {crf}", MediaFormat(video="short-gop", sound="none", gop=gop, crf=crf)
    for rate, quality in itertools.product((None, 8.0), (80, 90, 95)):
        name = f"jpeg {quality}, {'all frames' if rate is None else f'{rate:g} per s'}"
        yield name, MediaFormat(video="jpeg", sound="none", frame_rate=rate, quality=quality)


def measure(path: Path, media_format: MediaFormat) -> str:
    """One row of the table, without its first cells."""
    clip = Clip(clip_id=path.stem, uri=str(path), labels=(), split=TRAIN)
    seconds, (stored,) = _timed(lambda: list(stored_clips([clip], media_format)), repeats=2)
    if stored.facts is None:
        raise UserError(f"{path} cannot be used: {stored.reason}; give another video")
    count = stored.facts.num_frames
    kept = count if stored.media.frames is None else len(stored.media.frames)
    indices = np.array(kept_frames(count, kept))[np.linspace(0, kept - 1, FRAMES).astype(int)].tolist()
    decoding, frames = _timed(lambda: _open(stored, media_format).frames(indices), repeats=REPEATS)
    short_side = min(stored.facts.width, stored.facts.height)
    reference = _source_frames(path, indices, short_side)
    sound = len(stored.media.sound or b"")
    return (
        f"{(stored.media.size - sound) / 1e3:.0f} | {sound / 1e3:.0f} | {seconds:.2f} | {decoding * 1e3:.0f} | "
        f"{_psnr(frames, reference):.1f} | {_ssim(frames, reference):.4f} |"
    )


def _timed(work: Callable[[], Result], *, repeats: int) -> tuple[float, Result]:
    """CPU seconds of the process, the best of some runs: other programs on the machine do not count."""
    best = float("inf")
    for _ in range(repeats):
        start = time.process_time()
        result = work()
        best = min(best, time.process_time() - start)
    return best, result


def _open(stored: StoredClip, media_format: MediaFormat) -> Video:
    """As training does (`cast_ray.data.loader.clip_loader`) without a --data.decoder."""
    assert stored.facts is not None
    decoder = usual_decoder(media_format)
    return open_media(stored.media, num_frames=stored.facts.num_frames, fps=stored.facts.fps, decoder=decoder)


def _source_frames(path: Path, indices: list[int], short_side: int) -> Frames:
    """The source's frames, shrunk as for storage but not encoded again."""
    listing = list_packets(path.read_bytes())
    wanted = {index: place for place, index in enumerate(indices)}
    frames = enumerate(decoded(listing, 0, listing.shown))
    found = {wanted[index]: shrunk(frame, short_side) for index, frame in frames if index in wanted}
    return np.stack([found[wanted[index]] for index in indices])


def _psnr(frames: Frames, reference: Frames) -> float:
    error = np.mean((frames.astype(np.float32) - reference) ** 2)
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))


def _ssim(frames: Frames, reference: Frames) -> float:
    """Mean structural similarity of the luma (Wang et al. 2004: Gaussian window, sigma 1.5, K = 0.01 and 0.03)."""
    window = torch.exp(-((torch.arange(11.0) - 5) ** 2) / (2 * 1.5**2))
    window = torch.outer(window, window)[None, None] / window.sum() ** 2

    def smooth(values: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.conv2d(values[:, None], window)

    weights = torch.tensor([0.299, 0.587, 0.114])
    x, y = (torch.from_numpy(np.ascontiguousarray(each)).float() @ weights for each in (frames, reference))
    mean_x, mean_y = smooth(x), smooth(y)
    var_x, var_y = smooth(x * x) - mean_x**2, smooth(y * y) - mean_y**2
    covariance = smooth(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    similarity = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    return float((similarity / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))).mean())


def main(arguments: list[str]) -> int:
    """Print one table of all `formats` for the videos named in `arguments`."""
    console = Console(soft_wrap=True, highlight=False)
    torch.set_num_threads(1)
    console.print(HEADER.format("clip"), markup=False)
    try:
        for path in map(Path, arguments):
            for name, media_format in formats():
                console.print(f"| {path.stem} | {name} | {measure(path, media_format)}", markup=False)
    except UserError as error:
        Console(stderr=True).print(f"error: {error}", markup=False)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
