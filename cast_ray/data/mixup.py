"""How two clips and their labels are blended into one: mixup with soft targets, for any number of label fields.

Shapes: B clips of one micro batch, C classes of a field, M mel bins, F columns of a spectrogram.
Sources: mixup (arXiv 1710.09412) and CutMix (arXiv 1905.04899), with timm's batch mode: the micro batch is mixed with
itself in reverse order, one lambda for all. Sound is mixed as in CA2ST's published code. Compared with timm in the
tests.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from cast_ray.models.spec import AUDIO, HAS_AUDIO, VIDEO

__all__ = ["SoundMixing", "mix", "smooth_targets"]

SoundMixing = Literal["linear", "cutmix", "none"]


def mix(
    inputs: Mapping[str, Tensor],
    targets: Mapping[str, Tensor],
    valid: Tensor,
    *,
    num_classes: Mapping[str, int],
    alpha: float,
    probability: float,
    smoothing: float,
    rng: np.random.Generator,
    sound: SoundMixing = "linear",
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Mix the clips of a micro batch in pairs (first with last, and so on inwards).

    An odd batch is allowed: the middle clip stays as it is. So does a pair with a clip that is not valid. Whether a
    clip has sound and when its frames and sounds are stay its own.

    Args:
        inputs: of the network, see `cast_ray.data.inputs`; what is mixed is video [B, 3, T, H, W] and audio [B, M, F].
        targets: class indices [B] per label field; read only where `valid`.
        valid: boolean [B]; False for padding and for clips that could not be decoded.
        num_classes: classes per label field.
        alpha: both parameters of the beta distribution of lambda; 0 switches mixing off.
        probability: chance that this micro batch is mixed.
        smoothing: label smoothing, in [0, 1).
        rng: source of lambda and box. Key it by the place of the micro batch in the global batch, not by the rank
            alone, or the result depends on the number of workers.
        sound: linear, cutmix (the box), or none (every clip keeps its sound).

    Returns:
        Inputs with mixed clips, and per field float32 targets [B, C] that sum to 1, or are all 0 for a clip that is not
        valid.
    """
    mixed_up = rng.random() < probability
    weight = float(rng.beta(alpha, alpha)) if mixed_up and alpha > 0 else 1.0
    soft = {name: smooth_targets(target, valid, num_classes[name], smoothing) for name, target in targets.items()}
    if weight == 1.0:
        return dict(inputs), soft
    # The clip in the middle is its own partner: blended with itself it would be rounded.
    places = torch.arange(len(valid), device=valid.device)
    pairs = valid & valid.flip(0) & (places != places.flip(0))
    mixed, own = _mix_inputs(inputs, pairs, weight, sound, rng)
    return mixed, {name: _blend(target, own) for name, target in soft.items()}


def smooth_targets(target: Tensor, valid: Tensor, num_classes: int, smoothing: float) -> Tensor:
    """Class indices [B] to smoothed one-hot rows [B, C] in float32; rows of clips that are not valid are all 0.

    The right class gets 1 - smoothing + smoothing / C, every other one smoothing / C.
    """
    # Labels of padding may be any number, also outside the classes.
    safe = torch.where(valid, target, 0)
    soft = torch.full((len(target), num_classes), smoothing / num_classes, device=target.device)
    soft.scatter_(1, safe[:, None], 1.0 - smoothing + smoothing / num_classes)
    return soft * valid[:, None]


def _mix_inputs(
    inputs: Mapping[str, Tensor], pairs: Tensor, weight: float, sound: SoundMixing, rng: np.random.Generator
) -> tuple[dict[str, Tensor], Tensor]:
    """Mix the clips in `pairs` [B]; and the share [B] that each clip keeps of its own labels.

    Video is blended with `weight`, lambda. Sound is blended likewise, or a box of the partner's spectrogram with the
    area 1 - lambda replaces the clip's own; then the box's true area sets the weight of the labels. A clip keeps its
    sound, and its labels follow the video alone, if it or its partner has none: silence is no sound to blend with.
    """
    mixed = dict(inputs)
    own = torch.where(pairs, weight, 1.0).to(torch.float32)
    if VIDEO in inputs:
        mixed[VIDEO] = _blend(inputs[VIDEO], own)
    of_labels = own if VIDEO in inputs else torch.ones_like(own)
    if AUDIO in inputs and sound != "none":
        pairs = pairs & inputs[HAS_AUDIO] & inputs[HAS_AUDIO].flip(0)
        if sound == "linear":
            mixed[AUDIO], heard = _blend(inputs[AUDIO], torch.where(pairs, weight, 1.0)), weight
        else:
            mixed[AUDIO], heard = _paste(inputs[AUDIO], pairs, weight, rng)
        of_labels = torch.where(pairs, heard, of_labels)
    return mixed, of_labels


def _paste(spectrograms: Tensor, pairs: Tensor, weight: float, rng: np.random.Generator) -> tuple[Tensor, float]:
    """Fill one random box with what stands there in the partner, in `pairs` only; and the share that stays one's own.

    The box has the shape of the spectrogram and 1 - weight of its area, before what lies outside is cut off.
    """
    bins, columns = spectrograms.shape[1:]
    top, bottom = _span(bins, math.sqrt(1 - weight), rng)
    left, right = _span(columns, math.sqrt(1 - weight), rng)
    pasted = spectrograms.clone()
    pasted[:, top:bottom, left:right] = spectrograms.flip(0)[:, top:bottom, left:right]
    own = 1 - (bottom - top) * (right - left) / (bins * columns)
    return torch.where(pairs[:, None, None], pasted, spectrograms), own


def _span(size: int, share: float, rng: np.random.Generator) -> tuple[int, int]:
    centre, length = int(rng.integers(size)), int(size * share)
    return max(centre - length // 2, 0), min(centre + (length + 1) // 2, size)


def _blend(values: Tensor, own: Tensor) -> Tensor:
    """own * values + (1 - own) * values in reverse order; in float32, which bf16 inputs need for small weights."""
    own = own.view(-1, *[1] * (values.dim() - 1))
    return (values * own + values.flip(0) * (1 - own)).to(values.dtype)
