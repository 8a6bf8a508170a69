"""What a network is given: the columns of a batch, on its device, as the tensors that its inputs are named for.

Shapes: B clips, V views (only at test time), T frames, U time steps, S x S pixels, M mel bins, F columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cast_ray.data.augment import TrainAugment, normalise
from cast_ray.data.erasing import RandomErasing
from cast_ray.data.fbank import LogMel, SpectrogramMasks, normalise_spectrogram
from cast_ray.models.spec import AUDIO, AUDIO_TIMES, HAS_AUDIO, VIDEO, VIDEO_TIMES, NetworkSpec

__all__ = ["Augment", "InputMaker", "in_precision"]

Batch = Mapping[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Augment:
    """How training clips are varied; all of it is keyed by (seed, epoch, clip id, view)."""

    frames: TrainAugment
    spectrogram: SpectrogramMasks
    erasing: RandomErasing | None = None
    """None: off."""


class InputMaker:
    """Batches as `ClipLoader` makes them -> network inputs in float32, with views as clips of their own.

    * video [B, 3, T, S, S], normalised;
    * audio [B, M, F], normalised log-mel spectrograms; has_audio [B], False where they are padding alone;
    * video_times [B, U, 2] and audio_times [B, 2], in seconds;

    each only if the network needs it. With V views, B is clips x V.
    """

    def __init__(self, network: NetworkSpec, device: torch.device) -> None:
        self._needs = network.needs
        self._device = device
        self._video = network.video
        self._log_mel = LogMel(network.audio.mel_bins, device) if AUDIO in network.needs else None

    @property
    def sound(self) -> bool:
        """Whether the network takes sound."""
        return self._log_mel is not None

    def training(self, batch: Batch, augment: Augment, epoch: int) -> dict[str, Tensor]:
        """Inputs of clips with one view each, varied; `batch["view"]` tells a clip's repetitions apart."""
        return self._make(batch, augment, epoch)

    def evaluation(self, batch: Batch) -> dict[str, Tensor]:
        """Inputs as they are; clips may have views."""
        return self._make(batch, None, 0)

    def _make(self, batch: Batch, augment: Augment | None, epoch: int) -> dict[str, Tensor]:
        inputs: dict[str, Tensor] = {}
        clip_ids = batch["clip_id"].tolist()
        views = [] if augment is None else batch["view"].tolist()
        if VIDEO in self._needs:
            frames = self._tensor(batch["frames"], axes=4)
            if augment is not None:
                frames = augment.frames(frames, clip_ids, views, epoch)
            inputs[VIDEO] = normalise(frames, self._video)
            if augment is not None and augment.erasing is not None:
                augment.erasing(inputs[VIDEO], clip_ids, views, epoch)
        if self._log_mel is not None:
            columns = batch["audio_columns"].reshape(-1)
            on_device = self._tensor(columns, axes=0)
            spectrogram = self._log_mel(self._tensor(batch["audio"], axes=1), on_device)
            if augment is not None:
                spectrogram = augment.spectrogram(spectrogram, columns.tolist(), clip_ids, views, epoch)
            inputs[AUDIO], inputs[HAS_AUDIO] = normalise_spectrogram(spectrogram), on_device > 0
        for name, axes in ((VIDEO_TIMES, 2), (AUDIO_TIMES, 1)):
            if name in self._needs:
                inputs[name] = self._tensor(batch[name], axes=axes)
        return inputs

    def _tensor(self, column: np.ndarray, *, axes: int) -> Tensor:
        """A column on the device, with everything before the last `axes` axes in one: clips, or clips x views."""
        # Copied, because Ray hands out read-only views of shared memory, and torch knows no read-only tensors.
        return torch.from_numpy(np.array(column)).to(self._device).reshape(-1, *column.shape[column.ndim - axes :])


def in_precision(inputs: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Inputs with pixels and spectrograms in `dtype`; seconds stay float32, bf16 would round 40 s to quarters."""
    return {name: value.to(dtype) if name in (VIDEO, AUDIO) else value for name, value in inputs.items()}
