"""What an exported file says of itself: enough to build the network again, to feed it, and to read its answers."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import dacite

from cast_ray.config import ModelConfig
from cast_ray.data.fbank import AUDIOSET_MEAN, AUDIOSET_STD
from cast_ray.data.sound import HOP, SAMPLE_RATE, WINDOW
from cast_ray.data.views import TestViews
from cast_ray.errors import UserError
from cast_ray.labels import LabelMap
from cast_ray.models.named import spec_of
from cast_ray.models.spec import AUDIO, VIDEO, NetworkSpec
from cast_ray.settings.scale import ViewMean

if TYPE_CHECKING:
    from cast_ray.evaluation.trained import TrainedModel

__all__ = ["Contents", "Fingerprints", "Pixels", "Sound", "check_inputs", "contents_of", "from_json", "to_json"]

FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Pixels:
    """How frames become numbers: red, green and blue in 0 to 1, minus `mean`, divided by `std`."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Sound:
    """How sound becomes a spectrogram: Kaldi's log-mel filter bank of one channel, (x - mean) / (2 std)."""

    sample_rate: int
    """Samples per second."""
    window: int
    """Samples that one column is computed from."""
    hop: int
    """Samples from one column to the next."""
    mel_bins: int
    columns: int
    mean: float
    std: float


@dataclass(frozen=True, kw_only=True)
class Fingerprints:
    """What tells whether two models are the same; hex digits of SHA-256."""

    checkpoint: str
    """Of the checkpoint's trained tensors, as in predictions."""
    frozen: str
    """Of the experts' frozen weights in float32."""
    label_map: str
    dataset: str
    tensors: str
    """Of all tensors in the file."""


@dataclass(frozen=True, kw_only=True)
class Contents:
    """Everything in an exported file except its tensors."""

    model: ModelConfig
    """What the network is made of."""
    label_map: LabelMap
    views: TestViews
    """Frames, crops and pieces of sound of a clip, as in the run's test."""
    view_mean: ViewMean = "probabilities"
    """What is averaged over the views, likewise."""
    pixels: Pixels | None
    """None: the network does not see."""
    sound: Sound | None
    """None: the network does not hear."""
    fingerprints: Fingerprints
    written_by: str
    """Version of cast_ray."""


def contents_of(model: TrainedModel, *, tensors: str) -> Contents:
    """What the file of a trained model says, whose tensors have the fingerprint `tensors`."""
    spec = spec_of(model.config.model)
    return Contents(
        model=model.config.model,
        label_map=model.label_map,
        views=model.views,
        view_mean=model.config.test.view_mean,
        pixels=_pixels(spec),
        sound=_sound(spec),
        fingerprints=Fingerprints(
            checkpoint=model.fingerprint,
            frozen=model.frozen,
            label_map=model.label_map.fingerprint,
            dataset=model.dataset,
            tensors=tensors,
        ),
        written_by=importlib.metadata.version("cast_ray"),
    )


def to_json(contents: Contents) -> str:
    """As it stands in the file; equal contents make equal text."""
    values = dataclasses.asdict(contents) | {"label_map": json.loads(contents.label_map.to_json())}
    return json.dumps({"format_version": FORMAT_VERSION, **values}, ensure_ascii=False)


def from_json(text: str, *, where: str) -> Contents:
    """What `to_json` returned; `where` names the file in errors.

    Raises:
        UserError: another format version, or no such text.
    """
    try:
        values = json.loads(text)
        version = values.pop("format_version")
        if version != FORMAT_VERSION:
            raise UserError(
                f"{where} has export format {version}, this program reads {FORMAT_VERSION}; export the checkpoint "
                "again, or use the version of cast_ray that wrote it"
            )

        def label_map(names: object) -> LabelMap:
            return LabelMap.from_json(json.dumps(names), where=f"the label map in {where}")

        config = dacite.Config(cast=[tuple], strict=True, type_hooks={LabelMap: label_map})
        contents = dacite.from_dict(Contents, values, config)
    except (ValueError, KeyError, TypeError, AttributeError, dacite.DaciteError) as error:
        raise UserError(f"what {where} says of itself is damaged: {error!r}; export the checkpoint again") from error
    if contents.label_map.fingerprint != contents.fingerprints.label_map:
        raise UserError(f"the class names in {where} are not those of its checkpoint; export the checkpoint again")
    return contents


def check_inputs(contents: Contents, *, where: str) -> None:
    """Raise `UserError` if this version would build a network for other inputs than the file was written for."""
    spec, sampling = spec_of(contents.model), contents.views.sampling
    stored = (sampling.num_frames, sampling.size, contents.pixels, contents.sound)
    own = (spec.video.num_frames, spec.video.image_size, _pixels(spec), _sound(spec))
    if stored != own:
        raise UserError(
            f"{where} was written by cast_ray {contents.written_by}, whose model '{contents.model.name}' takes "
            f"{stored} (frames, size, pixels, sound); in this version it takes {own}. Use that version"
        )


def _pixels(spec: NetworkSpec) -> Pixels | None:
    return Pixels(mean=spec.video.mean, std=spec.video.std) if VIDEO in spec.needs else None


def _sound(spec: NetworkSpec) -> Sound | None:
    if AUDIO not in spec.needs:
        return None
    return Sound(
        sample_rate=SAMPLE_RATE,
        window=WINDOW,
        hop=HOP,
        mel_bins=spec.audio.mel_bins,
        columns=spec.audio.frames,
        mean=AUDIOSET_MEAN,
        std=AUDIOSET_STD,
    )
