"""How sound becomes the spectrogram that AST reads: Kaldi's log-mel filter bank, masked and normalised in batches.

Shapes: B clips, M mel bins, F columns of 10 ms, S samples.

Sources: Kaldi's `compute-fbank-feats` as AST calls it (arXiv 2104.01778): Hann window of 25 ms every 10 ms, only whole
windows, mean of each window removed, pre-emphasis 0.97, 512-point power spectrum, triangular filters from 20 Hz on,
no dither, no energy. SpecAugment is arXiv 1904.08779. Compared with Kaldi and with transformers in the tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cast_ray.data.randomness import rng_for
from cast_ray.data.sound import HOP, SAMPLE_RATE, WINDOW

__all__ = ["AUDIOSET_MEAN", "AUDIOSET_STD", "LogMel", "SpectrogramMasks", "normalise_spectrogram"]

AUDIOSET_MEAN, AUDIOSET_STD = -4.2677393, 4.5689974
"""Statistics of log-mel values of AudioSet, for samples in [-1, 1)."""

FFT_SIZE = 512
LOWEST_HZ = 20.0
PRE_EMPHASIS = 0.97
FLOOR = float(np.finfo(np.float32).eps)
"""Smallest energy of a filter, so that its logarithm exists."""
FULL_SCALE = 32768.0


class LogMel:
    """The filter bank on one device.

    The mean of the whole recording, which AST subtracts first, is not subtracted: removing the mean of each window
    makes it irrelevant.
    """

    def __init__(self, mel_bins: int, device: torch.device) -> None:
        self._window = torch.hann_window(WINDOW, periodic=False, dtype=torch.float64).float().to(device)
        self._filters = torch.from_numpy(_mel_filters(mel_bins)).to(device)

    def __call__(self, samples: Tensor, columns: Tensor) -> Tensor:
        """Log-mel spectrograms [B, M, F] in float32 of int16 samples [B, S].

        Columns from `columns` [B] on are padding and 0, as AST pads: after the logarithm, before normalising.
        """
        windows = samples.float().div_(FULL_SCALE).unfold(-1, WINDOW, HOP)
        windows = windows - windows.mean(-1, keepdim=True)
        previous = torch.cat([windows[..., :1], windows[..., :-1]], dim=-1)
        spectrum = torch.fft.rfft((windows - PRE_EMPHASIS * previous) * self._window, n=FFT_SIZE)
        power = spectrum.real.square() + spectrum.imag.square()
        spectrogram = (power @ self._filters).clamp_(min=FLOOR).log_().transpose(-1, -2)
        beyond = torch.arange(spectrogram.shape[-1], device=samples.device) >= columns[:, None]
        return spectrogram.masked_fill_(beyond[:, None], 0.0)


def normalise_spectrogram(spectrogram: Tensor) -> Tensor:
    """Log-mel values to mean 0 and standard deviation 1/2 over AudioSet, as AST does it."""
    return (spectrogram - AUDIOSET_MEAN) / (2 * AUDIOSET_STD)


@dataclass(frozen=True, kw_only=True)
class SpectrogramMasks:
    """SpecAugment without time warping: random stripes of training spectrograms are 0, as padding is.

    Keyed by (seed, epoch, clip id, view). Every stripe has a width drawn evenly from 0 to its limit, and lies anywhere
    inside the bins, or inside the columns that have sound.
    """

    seed: int
    time_masks: int
    time_mask_columns: int
    frequency_masks: int
    frequency_mask_bins: int
    mask_share: float
    """A stripe is at most this share of what it is a stripe of, however short that is."""

    def __call__(
        self, spectrogram: Tensor, columns: Sequence[int], clip_ids: Sequence[str], views: Sequence[int], epoch: int
    ) -> Tensor:
        """Masked log-mel spectrograms [B, M, F], not yet normalised, whose first `columns` [B] columns have sound."""
        bins, frames = spectrogram.shape[1:]
        hidden = np.zeros((len(clip_ids), bins + frames), bool)
        for row, clip_columns, clip_id, view in zip(hidden, columns, clip_ids, views, strict=True):
            rng = rng_for(self.seed, epoch, clip_id, "spectrogram", view)
            for _ in range(self.frequency_masks):
                row[self._stripe(bins, self.frequency_mask_bins, rng)] = True
            for _ in range(self.time_masks):
                row[bins:][self._stripe(clip_columns, self.time_mask_columns, rng)] = True
        mask = torch.from_numpy(hidden).to(spectrogram.device)
        return spectrogram.masked_fill(mask[:, :bins, None] | mask[:, None, bins:], 0.0)

    def _stripe(self, size: int, limit: int, rng: np.random.Generator) -> slice:
        width = int(rng.integers(min(limit, int(self.mask_share * size)) + 1))
        start = int(rng.integers(size - width + 1))
        return slice(start, start + width)


def _mel_filters(mel_bins: int) -> NDArray[np.float32]:
    """Triangles [FFT_SIZE / 2 + 1, M] whose corners are evenly spaced on Kaldi's mel scale up to half the rate."""
    corners = np.linspace(_mel(LOWEST_HZ), _mel(SAMPLE_RATE / 2), mel_bins + 2)
    frequencies = _mel(np.arange(FFT_SIZE // 2 + 1) * SAMPLE_RATE / FFT_SIZE)[:, None]
    left, centre, right = corners[:-2], corners[1:-1], corners[2:]
    rising, falling = (frequencies - left) / (centre - left), (right - frequencies) / (right - centre)
    return np.maximum(np.minimum(rising, falling), 0.0).astype(np.float32)


def _mel(hertz: float | NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(1127.0 * np.log1p(np.asarray(hertz) / 700.0))
