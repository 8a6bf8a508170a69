"""How fast GPU and decoders are, and how large stored clips: from `cast-ray bench` reports, or from what is known."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cast_ray.bench.data_clips import JPEG_FRAMES
from cast_ray.errors import UserError
from cast_ray.planning.datasets import Dataset
from cast_ray.planning.gpus import Gpu
from cast_ray.planning.known import ASSUMED, Known

__all__ = ["MEASURED", "ClipKind", "DataRates", "Media", "Report", "data_rates", "gpu_rate", "read_reports"]

Media = Literal["jpeg", "short-gop", "original"]

PATHS: Mapping[Media, str] = {"original": "same-cpu", "short-gop": "short-gop", "jpeg": "jpeg"}
"""Names in the report of `cast-ray bench data`, by what is stored."""
DECODE_STAGES = ("read", "decode", "crop", "other")
"""Stages of a path that a decode worker does in training."""
KINDS = {"model": "results", "data": "kinds", "train": "stack"}
"""Commands of `cast-ray bench` whose reports are taken, with a field that only theirs have."""
ACHIEVED = 0.45
"""Share of the vendor's rate that a training step reaches where nobody has measured it."""
SAMPLED_FRAMES = 16
"""Frames that the measured paths decode of every clip."""
SOUND_BYTES_PER_SECOND = 21e3
"""FLAC, one channel of 16 kHz; `python -m cast_ray.bench.storage` on a test clip."""
SOUND_SECONDS = 3e-3
"""Core seconds to read a clip's sound."""


@dataclass(frozen=True, kw_only=True)
class ClipKind:
    """What clips of one length cost, by how they are stored."""

    frames: float
    bytes: Mapping[Media, float]
    """Of a stored clip; as JPEG, of at most `JPEG_FRAMES` frames."""
    core_seconds: Mapping[Media, float]
    """To read a clip, decode and crop `SAMPLED_FRAMES` of its frames."""
    origin: str


HERE = "measured here (docs/planning.md), Xeon with AMX, 340x256 pixels, processor time without Ray's share"
MEASURED = (
    ClipKind(
        frames=290,
        bytes={"original": 352e3, "short-gop": 799e3, "jpeg": 813e3},
        core_seconds={"original": 82e-3, "short-gop": 51e-3, "jpeg": 9.0e-3},
        origin=HERE,
    ),
    ClipKind(
        frames=36,
        bytes={"original": 94e3, "short-gop": 176e3, "jpeg": 663e3},
        core_seconds={"original": 31e-3, "short-gop": 24e-3, "jpeg": 9.3e-3},
        origin=HERE,
    ),
)
"""Clips like those of Kinetics and of Something-Something-V2."""


@dataclass(frozen=True, kw_only=True)
class DataRates:
    """What one clip of the dataset costs."""

    stored_bytes: Known
    core_seconds: Known


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a file of `cast-ray bench` holds."""

    path: str
    content: Mapping[str, Any]

    @property
    def kind(self) -> str:
        """Which `cast-ray bench` command printed it; KINDS has the field that tells."""
        return next(kind for kind, field in KINDS.items() if field in self.content)

    def field(self, *names: str | int) -> Any:
        """What lies under these keys.

        Raises:
            UserError: a key is missing.
        """
        value: Any = self.content
        for depth, name in enumerate(names):
            try:
                value = value[name]
            except (KeyError, IndexError, TypeError):
                path = ".".join(map(str, names[: depth + 1]))
                raise UserError(f"'{self.path}' has no field {path}; make it anew with `cast-ray bench`") from None
        return value

    def group(self, *names: str | int) -> Mapping[str, Any]:
        """The object under these keys; anything else is a `UserError`."""
        value = self.field(*names)
        if not isinstance(value, dict):
            raise self._senseless(value, names, "an object")
        return value

    def number(self, *names: str | int) -> float:
        """The positive number under these keys; anything else is a `UserError`."""
        value = self.field(*names)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise self._senseless(value, names, "a number above 0")
        return float(value)

    def _senseless(self, value: object, names: tuple[str | int, ...], wanted: str) -> UserError:
        return UserError(
            f"'{self.path}' has {str(value)[:40]!r} in the field {'.'.join(map(str, names))}, which must be {wanted}; "
            "make it anew with `cast-ray bench`"
        )


def read_reports(paths: Sequence[Path]) -> tuple[Report, ...]:
    """The files that --rates names.

    Raises:
        UserError: a file cannot be read or is no report of `cast-ray bench`, or two are of one kind.
    """
    reports = []
    for path in paths:
        try:
            content = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise UserError(
                f"--rates is '{path}', which cannot be read: {error}; give JSON of `cast-ray bench`"
            ) from None
        if not isinstance(content, dict) or sum(field in content for field in KINDS.values()) != 1:
            fields = ", ".join(f"'{field}' (`cast-ray bench {kind}`)" for kind, field in KINDS.items())
            raise UserError(f"--rates is '{path}', which has none of {fields}; give what one of them printed as JSON")
        reports.append(Report(path=str(path), content=content))
    kinds = [report.kind for report in reports]
    if len(set(kinds)) != len(kinds):
        raise UserError("--rates names two reports of one kind; give at most one of each `cast-ray bench` command")
    return tuple(reports)


def gpu_rate(
    reports: Sequence[Report], gpu: Gpu, gpu_name: str, *, precision: str, micro_batch: int, checkpointed: bool
) -> Known:
    """FLOP/s that a training step gets done, counting what it really computes.

    The speed of the model's step is that of a report of `bench model`, else of the bare loop of `bench train`, else
    assumed; a report of `bench train` says what share of it the whole stack keeps.

    Raises:
        UserError: a report is of another GPU or precision, or a field is missing.
    """
    flops = gpu.flops(precision, gpu_name)
    model, train = _report(reports, "model"), _report(reports, "train")
    for report in (model, train):
        if report is not None:
            _check_fits(report, gpu, gpu_name, checkpointed)
    if model is not None:
        known = _of_model(model, precision, micro_batch)
    elif train is not None:
        known = _of_bare_loop(train, precision)
    else:
        known = Known(
            value=ACHIEVED * flops, origin=f"{flops / 1e12:g} TFLOP/s stated by the vendor x {ACHIEVED} {ASSUMED}"
        )
    if train is None:
        return known
    kept = min(1.0, train.number("ratio", "clips_per_second"))
    return Known(value=known.value * kept, origin=f"{known.origin}; x {kept:.3f} of the whole stack, from {train.path}")


def _report(reports: Sequence[Report], kind: str) -> Report | None:
    return next((report for report in reports if report.kind == kind), None)


def _check_fits(report: Report, gpu: Gpu, gpu_name: str, checkpointed: bool) -> None:
    device = str(report.field("environment", "device"))
    if not re.search(rf"\b{gpu.device}\b", device):
        raise UserError(f"'{report.path}' was measured on '{device}', but --gpu is {gpu_name}; give one from that GPU")
    if report.field("checkpoint_activations") != checkpointed:
        raise UserError(
            f"'{report.path}' has checkpoint_activations {not checkpointed}, the run {checkpointed}; measure it again "
            "with the run's choice"
        )


def _of_model(report: Report, precision: str, micro_batch: int) -> Known:
    """From the batch nearest to the run's; fp16 is taken to be as fast as bf16, whose matrix units have one rate."""
    variant = "eager-float32" if precision == "float32" else "eager-bf16"
    results = report.field("results")
    groups = [report.group("results", n) for n in range(len(results))]
    places = [n for n, each in enumerate(groups) if each.get("variant") == variant and "training" in each]
    if not places:
        raise UserError(f"'{report.path}' has no result of the variant {variant} with the field training; measure it")
    place = min(places, key=lambda n: abs(math.log(report.number("results", n, "batch") / micro_batch)))
    speed = report.number("results", place, "training", "clips_per_second")
    needed = 2 * report.number("multiply_adds_per_clip", "training")
    batch, model = report.number("results", place, "batch"), report.field("model")
    return Known(value=speed * needed, origin=f"from {report.path}: {model}, batch {batch:g}, {speed:.4g} clips/s")


def _of_bare_loop(report: Report, precision: str) -> Known:
    measured = report.field("precision")
    if (measured == "float32") != (precision == "float32"):
        raise UserError(f"'{report.path}' was measured in {measured}, the run has {precision}; measure it in that one")
    speed = report.number("bare", "clips_per_second") / report.number("workers")
    needed = 2 * report.number("multiply_adds_per_clip", "training")
    batch, model = report.number("batch"), report.field("model")
    return Known(value=speed * needed, origin=f"from {report.path}: {model}, batch {batch:g}, {speed:.4g} clips/s")


def data_rates(
    reports: Sequence[Report],
    dataset: Dataset,
    media: Media,
    *,
    frames: int,
    sound: bool,
    jpeg_frame_rate: float | None,
) -> DataRates:
    """Bytes and core seconds of a clip, from the measured clips whose length is nearest.

    The bytes grow with the frames that are stored. The time grows with the frames that are sampled; of original
    videos, which are decoded from key frame to key frame, with those of the whole clip.

    Args:
        reports: of `cast-ray bench`; without one of `data`, what was measured for docs/planning.md.
        dataset: length of its clips.
        media: how they are stored.
        frames: sampled of every clip; 0 for a model that only hears.
        sound: whether the model hears.
        jpeg_frame_rate: JPEG frames kept per second; None: all.
    """
    report = _report(reports, "data")
    kinds = MEASURED if report is None else _kinds(report, media)
    kind = min(kinds, key=lambda kind: abs(math.log(kind.frames / dataset.frames)))
    size, seconds, stored = 0.0, 0.0, dataset.frames
    if frames:
        if media == "jpeg":
            stored = min(stored, dataset.seconds.value * (jpeg_frame_rate or math.inf))
        size = kind.bytes[media] * stored / (min(kind.frames, JPEG_FRAMES) if media == "jpeg" else kind.frames)
        longer = dataset.frames / kind.frames if media == "original" else frames / SAMPLED_FRAMES
        seconds = kind.core_seconds[media] * longer
    origin = f"{kind.origin}; clips of {kind.frames:g} frames, scaled to {dataset.frames:g}"
    if sound:
        size += SOUND_BYTES_PER_SECOND * dataset.seconds.value
        seconds += SOUND_SECONDS
        origin += f"; sound {SOUND_SECONDS * 1e3:g} ms {ASSUMED}"
    return DataRates(stored_bytes=Known(value=size, origin=origin), core_seconds=Known(value=seconds, origin=origin))


def _core_seconds(report: Report, *path: str) -> float:
    """What a clip costs a decode worker of this path.

    The path over original videos also varies colours, in the consumer, for the comparison with others; training does
    that on the GPU. There the stages before count; they are without Ray's share.
    """
    if "augment" not in report.group(*path, "seconds_per_clip"):
        return 1 / report.number(*path, "clips_per_second_per_worker")
    return sum(report.number(*path, "seconds_per_clip", stage) for stage in DECODE_STAGES)


def _kinds(report: Report, media: Media) -> tuple[ClipKind, ...]:
    """The clips of a report for which the way of storing was measured."""
    path = PATHS[media]
    kinds = []
    for name in report.group("kinds"):
        where = ("kinds", name, "paths", path)
        if "reason" in report.group("kinds", name, "paths").get(path, {"reason": "not asked for"}):
            continue
        videos = report.field("kinds", name, "clips", "videos")
        frames = [report.number("kinds", name, "clips", "videos", n, "frames") for n in range(len(videos))]
        kinds.append(
            ClipKind(
                frames=sum(frames) / len(frames),
                bytes={media: report.number("kinds", name, "clips", "stored_bytes_per_clip", media)},
                core_seconds={media: _core_seconds(report, *where)},
                origin=f"from {report.path}: {name}, {path}",
            )
        )
    if not kinds:
        raise UserError(f"'{report.path}' has no measured path '{path}', which --media {media} needs; measure it")
    return tuple(kinds)
