"""How two clips and their labels are mixed into one: mixup and CutMix with soft targets, for any label fields.

Shapes: B clips of one micro batch, C classes of a field, H rows and W columns of pixels, M mel bins, F columns of a
spectrogram.
Sources: mixup (arXiv 1710.09412) and CutMix (arXiv 1905.04899), with timm's batch mode: the micro batch is mixed with
itself in reverse order, one lambda and one box for all. Sound is mixed as in CA2ST's published code. Compared with timm
in the tests.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from cast_ray.models.spec import AUDIO, HAS_AUDIO, VIDEO

__all__ = ["Mixing", "SoundMixing", "mix", "smooth_targets"]

SoundMixing = Literal["linear", "cutmix", "none"]


@dataclass(frozen=True, kw_only=True)
class Mixing:
    """Whether and how the clips of a micro batch are mixed in pairs."""

    probability: float
    """Chance that a micro batch is mixed."""
    mixup_alpha: float
    """Both parameters of the beta distribution of lambda, the share that a clip keeps; 0 switches mixup off."""
    cutmix_alpha: float
    """Likewise for CutMix."""
    cutmix_switch: float
    """Chance of CutMix instead of mixup where both are on."""
    sound: SoundMixing
    """linear: sound is blended, whatever happens to the frames; cutmix: a box of it is pasted; none: it stays."""

    def draw(self, rng: np.random.Generator) -> tuple[float, bool]:
        """Lambda (1.0: nothing is mixed), and whether frames are mixed by CutMix."""
        if rng.random() >= self.probability or not (self.mixup_alpha or self.cutmix_alpha):
            return 1.0, False
        both = self.mixup_alpha > 0 and self.cutmix_alpha > 0
        cut = rng.random() < self.cutmix_switch if both else self.cutmix_alpha > 0
        alpha = self.cutmix_alpha if cut else self.mixup_alpha
        return float(rng.beta(alpha, alpha)), cut


def mix(
    inputs: Mapping[str, Tensor],
    targets: Mapping[str, Tensor],
    valid: Tensor,
    *,
    num_classes: Mapping[str, int],
    mixing: Mixing,
    smoothing: float,
    rng: np.random.Generator,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Mix the clips of a micro batch in pairs (first with last, and so on inwards).

    An odd batch is allowed: the middle clip stays as it is. So does a pair with a clip that is not valid. Whether a
    clip has sound and when its frames and sounds are stay its own.

    Args:
        inputs: of the network, see `cast_ray.data.inputs`; what is mixed is video [B, 3, T, H, W] and audio [B, M, F].
        targets: class indices [B] per label field; read only where `valid`.
        valid: boolean [B]; False for padding and for clips that could not be decoded.
        num_classes: classes per label field.
        mixing: whether and how.
        smoothing: label smoothing, in [0, 1).
        rng: source of lambda and boxes. Key it by the place of the micro batch in the global batch, not by the rank
            alone, or the result depends on the number of workers.

    Returns:
        Inputs with mixed clips, and per field float32 targets [B, C] that sum to 1, or are all 0 for a clip that is not
        valid.
    """
    weight, cut = mixing.draw(rng)
    soft = {name: smooth_targets(target, valid, num_classes[name], smoothing) for name, target in targets.items()}
    if weight == 1.0:
        return dict(inputs), soft
    # The clip in the middle is its own partner: blended with itself it would be rounded.
    places = torch.arange(len(valid), device=valid.device)
    pairs = valid & valid.flip(0) & (places != places.flip(0))
    mixed, own = _mix_inputs(inputs, pairs, weight, cut, mixing.sound, rng)
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
    inputs: Mapping[str, Tensor],
    pairs: Tensor,
    weight: float,
    cut: bool,
    sound: SoundMixing,
    rng: np.random.Generator,
) -> tuple[dict[str, Tensor], Tensor]:
    """Mix the clips in `pairs` [B]; and the share [B] that each clip keeps of its own labels.

    Frames keep `weight`, lambda, or what the box leaves of them. Sound is blended with that same share, or a box of the
    partner's spectrogram replaces the clip's own: the frames' box, stretched to the spectrogram, or after mixup one of
    the area 1 - lambda. Labels follow the sound, whose share is the frames' share but for a pasted box's rounding, or
    its part that lies outside. A clip keeps its sound, and its labels follow the frames alone, if it or its partner has
    none: silence is no sound to mix with.
    """
    mixed, box = dict(inputs), None
    of_labels = torch.ones(len(pairs), device=pairs.device)
    if VIDEO in inputs:
        if cut:
            box = _draw_box(inputs[VIDEO], weight, rng)
            mixed[VIDEO], weight = _paste(inputs[VIDEO], pairs, box)
        else:
            mixed[VIDEO] = _blend(inputs[VIDEO], torch.where(pairs, weight, 1.0))
        of_labels = torch.where(pairs, weight, of_labels)
    if AUDIO in inputs and sound != "none":
        pairs = pairs & inputs[HAS_AUDIO] & inputs[HAS_AUDIO].flip(0)
        if sound == "linear":
            mixed[AUDIO] = _blend(inputs[AUDIO], torch.where(pairs, weight, 1.0))
        elif box is None:
            mixed[AUDIO], weight = _paste(inputs[AUDIO], pairs, _draw_box(inputs[AUDIO], weight, rng))
        else:
            mixed[AUDIO], weight = _paste(inputs[AUDIO], pairs, _stretch(box, inputs[VIDEO], inputs[AUDIO]))
        of_labels = torch.where(pairs, weight, of_labels)
    return mixed, of_labels


class _Box(NamedTuple):
    """Rows top to bottom and columns left to right, the last ones not included."""

    top: int
    bottom: int
    left: int
    right: int


def _draw_box(values: Tensor, weight: float, rng: np.random.Generator) -> _Box:
    """A box of the shape of values [..., rows, columns] and 1 - weight of their area; what lies outside is cut."""
    rows, columns = values.shape[-2:]
    return _Box(*_span(rows, math.sqrt(1 - weight), rng), *_span(columns, math.sqrt(1 - weight), rng))


def _span(size: int, share: float, rng: np.random.Generator) -> tuple[int, int]:
    centre, length = int(rng.integers(size)), int(size * share)
    return max(centre - length // 2, 0), min(centre + (length + 1) // 2, size)


def _stretch(box: _Box, values: Tensor, others: Tensor) -> _Box:
    """The box of `values` at the same part of the rows and columns of `others`, both [..., rows, columns]."""
    down, across = (new / old for new, old in zip(others.shape[-2:], values.shape[-2:], strict=True))
    return _Box(*(round(edge * scale) for edge, scale in zip(box, (down, down, across, across), strict=True)))


def _paste(values: Tensor, pairs: Tensor, box: _Box) -> tuple[Tensor, float]:
    """Fill the box of values [B, ..., rows, columns] with the partner's, in `pairs` only; and the share that stays."""
    part = (..., slice(box.top, box.bottom), slice(box.left, box.right))
    own = values[part]
    pasted = values.clone()
    pasted[part] = torch.where(pairs.view(-1, *[1] * (values.dim() - 1)), own.flip(0), own)
    rows, columns = values.shape[-2:]
    return pasted, 1 - (box.bottom - box.top) * (box.right - box.left) / (rows * columns)


def _blend(values: Tensor, own: Tensor) -> Tensor:
    """own * values + (1 - own) * values in reverse order; in float32, which bf16 inputs need for small weights."""
    own = own.view(-1, *[1] * (values.dim() - 1))
    return (values * own + values.flip(0) * (1 - own)).to(values.dtype)
