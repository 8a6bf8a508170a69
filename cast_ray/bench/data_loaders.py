"""What a user would pick instead of our pipeline: torch's DataLoader over video files, with PIL or tensor transforms.

`PilClips` does what the papers' code does, in its order: decord; RandAugment of timm on PIL images at full resolution,
bicubic, one draw for all frames of a clip; float tensors, normalised at full resolution; random resized crop; flip.
`TensorClips` is what torchvision's own recipes do today: torchcodec where it can be loaded, else decord; random
resized crop, RandAugment and flip of uint8 tensors; then float, normalised.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

__all__ = ["PilClips", "TensorClips", "endless_loader"]

SIZE, FRAMES = 224, 16
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
RAND_AUGMENT = "rand-m7-n4-mstd0.5-inc1"
OPERATIONS, MAGNITUDE = 2, 21
"""Of torchvision's RandAugment: as many operations as timm's applies on average (half of 4), 0.7 of 30."""


def endless_loader(clips: Dataset[Tensor], *, count: int, batch: int, workers: int) -> DataLoader[Tensor]:
    """A loader that goes through `count` clips over and over."""
    return DataLoader(clips, batch_size=batch, num_workers=workers, sampler=_Endless(count))


class _Endless(Sampler[int]):
    def __init__(self, count: int) -> None:
        self._count = count

    def __iter__(self) -> Iterator[int]:
        while True:
            yield from range(self._count)


@dataclass(frozen=True)
class PilClips(Dataset[Tensor]):
    """Clips [3, T, S, S], float32, normalised; also the bare `Work` of making them."""

    files: Sequence[str]

    def __getitem__(self, index: int) -> Tensor:
        return _flip(_crop(_normalise(_to_tensor(_augment(_decord(self.files[index]))))))

    def __call__(self, number: int) -> int:
        self[number % len(self.files)]
        return 1

    def stages(self) -> Mapping[str, tuple[Callable[..., Any], ...]]:
        return {"decode": (_decord,), "augment": (_augment, _to_tensor, _normalise, _flip), "crop": (_crop,)}


@dataclass(frozen=True)
class TensorClips(Dataset[Tensor]):
    """Clips [3, T, S, S], float32, normalised; also the bare `Work` of making them."""

    files: Sequence[str]

    def __getitem__(self, index: int) -> Tensor:
        return _vary(_crop(_decode(self.files[index])))

    def __call__(self, number: int) -> int:
        self[number % len(self.files)]
        return 1

    def stages(self) -> Mapping[str, tuple[Callable[..., Any], ...]]:
        return {"decode": (_decode,), "crop": (_crop,), "augment": (_vary,)}


def _decord(file: str) -> np.ndarray:
    """Frames [T, H, W, 3]."""
    import decord

    video = decord.VideoReader(file, ctx=decord.cpu(0), num_threads=1)
    return video.get_batch(_indices(len(video))).asnumpy()


def _decode(file: str) -> Tensor:
    """Frames [T, 3, H, W]."""
    try:
        from torchcodec.decoders import VideoDecoder  # type: ignore[attr-defined]
    except (ImportError, OSError, RuntimeError):
        return torch.from_numpy(_decord(file)).permute(0, 3, 1, 2)
    video = VideoDecoder(file, num_ffmpeg_threads=1)
    return video.get_frames_at(_indices(len(video))).data


def _indices(count: int) -> list[int]:
    """One random frame in each of equal segments."""
    length = count / FRAMES
    return [min(int((segment + random.random()) * length), count - 1) for segment in range(FRAMES)]


@functools.cache
def _rand_augment() -> Callable[[Any], Any]:
    from PIL import Image
    from timm.data.auto_augment import rand_augment_transform

    return rand_augment_transform(
        RAND_AUGMENT,
        {
            "translate_const": int(SIZE * 0.45),
            "img_mean": tuple(round(255 * mean) for mean in MEAN),
            "interpolation": Image.Resampling.BICUBIC,
        },
    )


def _augment(frames: np.ndarray) -> list[Any]:
    """PIL images. timm draws from the global generators, which are set back for every frame of the clip."""
    from PIL import Image

    transform = _rand_augment()
    here, there = random.getstate(), np.random.get_state()
    images = []
    for frame in frames:
        random.setstate(here)
        np.random.set_state(there)
        images.append(transform(Image.fromarray(frame)))
    return images


def _to_tensor(images: Sequence[Any]) -> Tensor:
    """Frames [T, H, W, 3] in [0, 1]."""
    from torchvision.transforms.functional import to_tensor

    return torch.stack([to_tensor(image) for image in images]).permute(0, 2, 3, 1)


def _normalise(frames: Tensor) -> Tensor:
    """Clip [3, T, H, W]."""
    return ((frames - torch.tensor(MEAN)) / torch.tensor(STD)).permute(3, 0, 1, 2)


def _crop(frames: Tensor) -> Tensor:
    """[..., H, W] to [..., S, S], the same box in all frames."""
    from torchvision.transforms.v2 import RandomResizedCrop

    return RandomResizedCrop(SIZE, antialias=False)(frames)


def _flip(clip: Tensor) -> Tensor:
    return clip.flip(-1) if random.random() < 0.5 else clip


def _vary(frames: Tensor) -> Tensor:
    """uint8 frames [T, 3, S, S] to a clip [3, T, S, S]."""
    from torchvision.transforms import v2

    chain = v2.Compose(
        [
            v2.RandAugment(num_ops=OPERATIONS, magnitude=MAGNITUDE),
            v2.RandomHorizontalFlip(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )
    return chain(frames).transpose(0, 1)
