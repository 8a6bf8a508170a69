"""When a token happened: embeddings of start and end second for exchanges between sound and video.

From the code of CA2ST's authors (option `time_encoding`). Legend: B batch, U time steps, P audio patches, R width.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from cast_ray.models.experts.expert import TokenLayout
from cast_ray.models.layers import new_linear
from cast_ray.models.spec import AUDIO, AUDIO_TIMES, VIDEO, VIDEO_TIMES

__all__ = ["Clock"]

NORM_EPS = 1e-6


class Clock(nn.Module):
    """Embeds [start, end] in seconds as R channels: three linear layers with ReLU and a norm.

    Args:
        layouts: token layout by name, of the experts whose tokens it places in time.
        modalities: VIDEO or AUDIO by expert name.
        width: R.
        split: whether video and audio have embeddings of their own.
    """

    def __init__(
        self, layouts: Mapping[str, TokenLayout], modalities: Mapping[str, str], *, width: int, split: bool
    ) -> None:
        super().__init__()
        self.layouts = dict(layouts)
        self.modalities = dict(modalities)
        self.parts = max(layout.steps for layout in layouts.values())
        names = sorted(set(modalities.values()), reverse=True) if split else ["shared"]
        self.embed = nn.ModuleDict({name: _embedding(width) for name in names})
        self.split = split

    def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What is added to the reduced patches [B, T, N, R] of every expert."""
        encoded = {}
        if VIDEO in self.modalities.values():
            encoded[VIDEO] = self._encode(VIDEO, inputs[VIDEO_TIMES])[:, :, None]
        if AUDIO in self.modalities.values():
            encoded[AUDIO] = self._encode(AUDIO, self._audio_spans(inputs[AUDIO_TIMES]))
        return {
            name: encoded[VIDEO] if modality == VIDEO else self._over_patches(encoded[AUDIO], self.layouts[name])
            for name, modality in self.modalities.items()
        }

    def _encode(self, modality: str, times: Tensor) -> Tensor:
        return self.embed[modality if self.split else "shared"](times)

    def _audio_spans(self, times: Tensor) -> Tensor:
        """The span [B, 2] cut into as many equal parts as the video has steps, [B, U, 2]."""
        start, end = times[:, :1], times[:, 1:]
        edges = torch.linspace(0, 1, self.parts + 1, device=times.device, dtype=times.dtype)
        edges = start + (end - start) * edges
        return torch.stack([edges[:, :-1], edges[:, 1:]], dim=2)

    def _over_patches(self, encoded: Tensor, layout: TokenLayout) -> Tensor:
        """Parts [B, U, R] over the columns of a spectrogram's patches, [B, 1, P, R]."""
        rows, columns = layout.grid
        part = torch.arange(columns, device=encoded.device) * self.parts // columns
        return encoded[:, part].repeat(1, rows, 1)[:, None]


class Seconds(nn.Linear):
    """A linear layer on seconds that computes in float32 and answers in the type of its weights."""

    def __init__(self, width: int) -> None:
        super().__init__(2, width)
        nn.init.trunc_normal_(self.weight, std=0.02)
        nn.init.zeros_(self.bias)

    def forward(self, times: Tensor) -> Tensor:
        # Element by element, because autocast would make a matrix product of bf16, which rounds 40 s to quarters.
        products = times.float()[..., None, :] * self.weight.float()
        return (products.sum(-1) + self.bias.float()).to(self.weight.dtype)


def _embedding(width: int) -> nn.Sequential:
    return nn.Sequential(
        Seconds(width),
        nn.ReLU(),
        new_linear(width, width),
        nn.ReLU(),
        new_linear(width, width),
        nn.ReLU(),
        nn.LayerNorm(width, eps=NORM_EPS),
    )
