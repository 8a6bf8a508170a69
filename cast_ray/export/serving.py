"""What an exported graph computes: decoded media in, logits out, with all arithmetic of the preprocessing inside.

Shapes: B views of clips, T frames, U time steps, S x S pixels, L samples, C classes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cast_ray.data.augment import normalise
from cast_ray.data.fbank import LogMel, normalise_spectrogram
from cast_ray.data.inputs import in_precision
from cast_ray.data.sound import samples_for
from cast_ray.export.contents import Contents, to_json
from cast_ray.models.network import Network
from cast_ray.models.spec import AUDIO, AUDIO_TIMES, HAS_AUDIO, VIDEO, VIDEO_TIMES, NetworkSpec

__all__ = ["LOGITS", "Medium", "Serving", "media_of", "notes_of", "random_media"]

LOGITS = "logits_"
"""Stands before a label field in the name of an output."""


@dataclass(frozen=True, kw_only=True)
class Medium:
    """One input of the graph."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    """Without the batch."""
    meaning: str


def media_of(spec: NetworkSpec) -> dict[str, Medium]:
    """The inputs of the graph of such a network, by name and in order: the columns that `ClipLoader` makes."""
    video, audio = spec.video, spec.audio
    samples = samples_for(audio.frames)
    media = {
        "frames": Medium(
            dtype=torch.uint8,
            shape=(video.num_frames, video.image_size, video.image_size, 3),
            meaning="RGB pixels 0 to 255: frame, row, column, channel",
        ),
        "audio": Medium(
            dtype=torch.int16, shape=(samples,), meaning="samples of one channel at 16 kHz, zeros after the end"
        ),
        "audio_columns": Medium(
            dtype=torch.int64,
            shape=(),
            meaning="columns of 10 ms that have sound, as whole windows of 25 ms; 0 for a clip without sound",
        ),
        "video_times": Medium(
            dtype=torch.float32, shape=(video.steps, 2), meaning="start and end second of every time step in the clip"
        ),
        "audio_times": Medium(dtype=torch.float32, shape=(2,), meaning="start and end second of the samples"),
    }
    needs = {
        "frames": VIDEO in spec.needs,
        "audio": AUDIO in spec.needs,
        "audio_columns": AUDIO in spec.needs,
        "video_times": VIDEO_TIMES in spec.needs,
        "audio_times": AUDIO_TIMES in spec.needs,
    }
    return {name: medium for name, medium in media.items() if needs[name]}


class Serving(nn.Module):
    """A network behind its preprocessing; the same numbers as `InputMaker.evaluation` and the network give.

    Args:
        network: in evaluation mode.
        dtype: that of its weights; logits are float32 in any case.
    """

    def __init__(self, network: Network, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.network = network
        self._dtype = dtype
        self._log_mel = LogMel(network.spec.audio.mel_bins, torch.device("cpu"))

    def forward(
        self,
        frames: Tensor | None = None,
        audio: Tensor | None = None,
        audio_columns: Tensor | None = None,
        video_times: Tensor | None = None,
        audio_times: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Inputs as `media_of` says, each [B, ...]; logits [B, C] by `logits_<field>`."""
        inputs: dict[str, Tensor] = {}
        if frames is not None:
            inputs[VIDEO] = normalise(frames, self.network.spec.video)
        if audio is not None and audio_columns is not None:
            inputs[AUDIO] = normalise_spectrogram(self._log_mel(audio, audio_columns))
            inputs[HAS_AUDIO] = audio_columns > 0
        for name, times in ((VIDEO_TIMES, video_times), (AUDIO_TIMES, audio_times)):
            if times is not None:
                inputs[name] = times
        logits = self.network(in_precision(inputs, self._dtype))
        return {f"{LOGITS}{field}": scores.float() for field, scores in logits.items()}


def notes_of(contents: Contents, spec: NetworkSpec) -> dict[str, str]:
    """What a graph's file says of itself, as JSON by the entry's name: `cast_ray`, as in other exported files, and
    `interface`, which anybody can read: inputs, outputs with their class names, and how to come from one to a class."""
    inputs = {
        name: {
            "type": str(medium.dtype).removeprefix("torch."),
            "shape": ["batch", *medium.shape],
            "is": medium.meaning,
        }
        for name, medium in media_of(spec).items()
    }
    outputs = {f"{LOGITS}{field}": {"classes": list(names)} for field, names in contents.label_map.names.items()}
    interface = {
        "inputs": inputs,
        "outputs": outputs,
        "inside": "all arithmetic after decoding and cropping, such as mean and deviation of the pixels",
        "outside": "the softmax over the classes",
    }
    return {"cast_ray": to_json(contents), "interface": json.dumps(interface, ensure_ascii=False)}


def random_media(spec: NetworkSpec, batch: int, *, seed: int = 0) -> dict[str, Tensor]:
    """Noise that fits the inputs; of the clips with sound, one in three has none and one in three ends early."""
    draw = torch.Generator().manual_seed(seed)
    media: dict[str, Tensor] = {}
    for name, medium in media_of(spec).items():
        shape = (batch, *medium.shape)
        if name == "audio_columns":
            shares = torch.tensor([1.0, 0.5, 0.0]).repeat(batch)[:batch]
            media[name] = (shares * spec.audio.frames).long()
        elif medium.dtype == torch.float32:
            media[name] = torch.rand(shape, generator=draw).cumsum(-1)  # an end after each start
        else:
            limits = torch.iinfo(medium.dtype)
            media[name] = torch.randint(limits.min, limits.max + 1, shape, generator=draw).to(medium.dtype)
    return media
