"""What a prepared dataset holds, in figures: splits, classes, lengths, formats, and what is left out of it."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cast_ray.data.inspection.overlap import Overlap, overlap_of_splits
from cast_ray.data.media import MediaFormat
from cast_ray.data.shards import ShardedDataset

__all__ = ["ClassCount", "LeftOut", "Split", "Spread", "Summary", "durations_s", "summarise"]

BINS = 12
"""Of the histogram of a `Spread`."""

Tally = Mapping[str, int]
"""Clips by value, the most frequent first."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """One split; clips that cannot be used count in `clips` and `quarantined` alone."""

    clips: int
    quarantined: int
    without_sound: int
    hours: float
    bytes: int
    bytes_per_clip: float


@dataclass(frozen=True, kw_only=True)
class ClassCount:
    """How many usable clips of each split have a label."""

    index: int
    name: str
    clips: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class Spread:
    """How a number is distributed over the usable clips of which it is known."""

    unknown: int
    """Clips of which it is not known; the figures are null if that is all."""
    minimum: float | None = None
    percentile_5: float | None = None
    median: float | None = None
    mean: float | None = None
    percentile_95: float | None = None
    maximum: float | None = None
    histogram: tuple[int, ...] = ()
    """Clips in equal bins from the minimum to the maximum; empty if these are equal."""


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """Clips with a reason."""

    reasons: Tally
    """Clips by reason; reasons that differ in numbers alone are one, with # for the numbers."""
    clips: tuple[Mapping[str, str], ...]
    """`clip_id`, `split`, `uri` and `reason` of each."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The figures of a dataset. Except for `quarantined`, they are about the clips that can be used."""

    uri: str
    fingerprint: str
    format: MediaFormat
    num_classes: Mapping[str, int]
    splits: Mapping[str, Split]
    classes: Mapping[str, tuple[ClassCount, ...]]
    """By label field, in index order."""
    duration_s: Spread
    num_frames: Spread
    fps: Spread
    frame_rates: Tally
    """The same as values, to two decimals."""
    sizes: Tally
    """Of the stored frames, width x height."""
    video_codecs: Tally
    """Of what is stored, as the next."""
    sound_codecs: Tally
    sources: Tally
    """Codec and size of the files that the clips were made from."""
    quarantined: LeftOut
    broken_sound: LeftOut
    """Usable clips whose sound is broken."""
    overlaps: tuple[Overlap, ...]
    """Clips that share seconds of a file with a clip of another split."""

    def to_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return dataclasses.asdict(self) | {"overlaps": [overlap._asdict() for overlap in self.overlaps]}


def summarise(dataset: ShardedDataset) -> Summary:
    """The figures of a dataset, from its index alone: no media is read."""
    usable = dataset.index.filter(pc.is_valid(dataset.index["num_frames"]))
    rates = _numbers(usable, "fps")
    width, height = (pc.cast(usable[name], pa.string()) for name in ("width", "height"))
    return Summary(
        uri=dataset.uri,
        fingerprint=dataset.fingerprint,
        format=dataset.format,
        num_classes=dataset.label_map.num_classes,
        splits=_splits(dataset.index),
        classes=_classes(dataset, usable),
        duration_s=_spread(durations_s(usable)),
        num_frames=_spread(_numbers(usable, "num_frames")),
        fps=_spread(np.where(rates > 0, rates, np.nan)),
        frame_rates=_tally(f"{rate:.2f}" if rate > 0 else "unknown" for rate in rates),
        sizes=_tally(pc.binary_join_element_wise(width, height, "x").to_pylist()),
        video_codecs=_tally(usable["video_codec"].to_pylist()),
        sound_codecs=_tally(codec or "none" for codec in usable["sound_codec"].to_pylist()),
        sources=_tally(usable["source"].to_pylist()),
        quarantined=_left_out(dataset.quarantined),
        broken_sound=_left_out(usable.filter(pc.not_equal(usable["reason"], ""))),
        overlaps=tuple(overlap_of_splits(usable)),
    )


def durations_s(rows: pa.Table) -> NDArray[np.float64]:
    """Seconds of each clip; NaN where they are unknown."""
    frames, rates = _numbers(rows, "num_frames"), _numbers(rows, "fps")
    annotated = _numbers(rows, "source_stop_s") - _numbers(rows, "source_start_s")
    return np.where(rates > 0, frames / np.where(rates > 0, rates, 1.0), annotated)


def _splits(index: pa.Table) -> dict[str, Split]:
    splits = {}
    for name in pc.unique(index["split"]).to_pylist():
        rows = index.filter(pc.equal(index["split"], name))
        usable = rows.filter(pc.is_valid(rows["num_frames"]))
        size = sum(usable["bytes"].to_pylist())
        splits[name] = Split(
            clips=rows.num_rows,
            quarantined=rows.num_rows - usable.num_rows,
            without_sound=usable["sound_codec"].to_pylist().count(""),
            hours=float(np.nansum(durations_s(usable))) / 3600,
            bytes=size,
            bytes_per_clip=size / max(usable.num_rows, 1),
        )
    return splits


def _classes(dataset: ShardedDataset, usable: pa.Table) -> dict[str, tuple[ClassCount, ...]]:
    splits = pc.unique(dataset.index["split"]).to_pylist()
    counts: dict[tuple[int, str], Counter[int]] = defaultdict(Counter)
    for split, labels in zip(usable["split"].to_pylist(), usable["labels"].to_pylist(), strict=True):
        for place, label in enumerate(labels):
            counts[place, split][label] += 1
    return {
        field: tuple(
            ClassCount(index=index, name=name, clips={split: counts[place, split][index] for split in splits})
            for index, name in enumerate(names)
        )
        for place, (field, names) in enumerate(dataset.label_map.names.items())
    }


def _spread(values: NDArray[np.float64]) -> Spread:
    known = values[np.isfinite(values)]
    unknown = len(values) - len(known)
    if not len(known):
        return Spread(unknown=unknown)
    low, high = float(known.min()), float(known.max())
    return Spread(
        unknown=unknown,
        minimum=low,
        percentile_5=float(np.percentile(known, 5)),
        median=float(np.median(known)),
        mean=float(known.mean()),
        percentile_95=float(np.percentile(known, 95)),
        maximum=high,
        histogram=tuple(np.histogram(known, bins=BINS)[0].tolist()) if high > low else (),
    )


def _left_out(rows: pa.Table) -> LeftOut:
    clips = rows.select(["clip_id", "split", "uri", "reason"]).to_pylist()
    alike: dict[str, list[str]] = defaultdict(list)
    for clip in clips:
        alike[re.sub(r"\b\d+(\.\d+)?\b", "#", clip["reason"])].append(clip["reason"])
    tally = _tally(reasons[0] if len(set(reasons)) == 1 else kind for kind, reasons in alike.items() for _ in reasons)
    return LeftOut(reasons=tally, clips=tuple(clips))


def _tally(values: Any) -> Tally:
    return dict(sorted(Counter(values).items(), key=lambda item: (-item[1], item[0])))


def _numbers(rows: pa.Table, column: str) -> NDArray[np.float64]:
    """A column, with NaN for null."""
    return np.asarray(pc.cast(rows[column], pa.float64()).to_numpy(), np.float64)
