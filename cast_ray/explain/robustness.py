"""How accuracy falls as clips are damaged more and more: what a model really uses of time, space and sound.

Every clip is decoded once; all damage is done to the decoded media in memory. The view is that of validation: central
frames, central crop, the middle of the sound. Reads nothing but the checkpoint and the clips, and needs no cluster.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cast_ray.data.loader import ClipLoader
from cast_ray.errors import UserError
from cast_ray.evaluation.bootstrap import Interval
from cast_ray.evaluation.comparison import Assessment, Resampling, compare
from cast_ray.evaluation.predictions import Predictions
from cast_ray.evaluation.replica import Replica
from cast_ray.evaluation.trained import TrainedModel
from cast_ray.explain.corruptions import CORRUPTIONS, Corruption, Name, corrupt
from cast_ray.labels import LabelMap
from cast_ray.models.named import spec_of
from cast_ray.models.spec import AUDIO, VIDEO
from cast_ray.report.confusion import frequent_mistakes

__all__ = [
    "CLEAN",
    "Level",
    "Mistake",
    "Robustness",
    "applicable",
    "assess",
    "predict_damaged",
]

TOP1 = "_top1"

MISTAKES = 5


class Level(NamedTuple):
    """One level of one kind of damage."""

    corruption: Name | None
    """None: undamaged."""
    level: float


CLEAN = Level(None, 0.0)


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """How often one class was taken for another."""

    true: str
    predicted: str
    clips: int
    of: int
    """Clips of the true class."""


@dataclass(frozen=True, kw_only=True)
class Robustness:
    """Everything that is found out."""

    model: str
    checkpoint: str
    corruptions: tuple[Corruption, ...]
    assessed: Mapping[Level, Assessment]
    """At every level of every kind of damage, and `CLEAN`; its differences are those from the undamaged clips."""
    label_map: LabelMap
    num_clips: int
    confidence: float
    """Level of the intervals, such as 0.95."""
    notes: tuple[str, ...]
    """What was left out, and why."""

    @property
    def measured(self) -> tuple[str, ...]:
        """What has an accuracy: the label fields, and the action if there are verbs and nouns."""
        return tuple(name.removesuffix(TOP1) for name in self.assessed[CLEAN].figures if name.endswith(TOP1))

    def accuracy(self, name: str, at: Level) -> Interval:
        """Top-1 accuracy, a fraction."""
        return self.assessed[at].figures[f"{name}{TOP1}"]

    def change(self, name: str, at: Level) -> Interval:
        """What the accuracy has changed by from the undamaged clips, paired clip by clip."""
        return self.assessed[at].differences[f"{name}{TOP1}"]

    def chance(self, name: str) -> float:
        """Accuracy of guessing uniformly."""
        metrics = self.assessed[CLEAN].metrics
        return metrics.fields[name].chance if name in metrics.fields else metrics.action_chance or 0.0

    def mistakes(self, field: str, at: Level) -> tuple[Mistake, ...]:
        """The most frequent ones, most frequent first."""
        names, counts = self.label_map.names[field], self.assessed[at].metrics.fields[field].confusion
        return tuple(
            Mistake(
                true=names[one.true], predicted=names[one.predicted], clips=one.clips, of=int(counts[one.true].sum())
            )
            for one in frequent_mistakes(counts, most=MISTAKES)
        )


def applicable(model: TrainedModel, names: Sequence[Name]) -> tuple[list[Corruption], list[str]]:
    """The kinds of damage that concern what the model takes, and a sentence about each that is left out."""
    taken = [CORRUPTIONS[name] for name in names]
    inputs = spec_of(model.config.model).needs
    needs = {"video": VIDEO in inputs, "audio": AUDIO in inputs}
    words = {"video": "video", "audio": "sound"}
    notes = [
        f"{corruption.name} is left out: {model.config.model.name} takes no {words[corruption.medium]}"
        for corruption in taken
        if not needs[corruption.medium]
    ]
    return [corruption for corruption in taken if needs[corruption.medium]], notes


def predict_damaged(
    model: TrainedModel,
    loader: ClipLoader,
    rows: pa.Table,
    corruptions: Sequence[Corruption],
    *,
    seed: int,
    clips_at_once: int,
    progress: Callable[[int], None],
) -> tuple[dict[Level, Predictions], list[tuple[str, str]]]:
    """Predictions of the undamaged clips, and of the clips at every level of every kind of damage.

    Args:
        model: what predicts.
        loader: of the dataset, with one view per clip.
        rows: of the dataset's index.
        corruptions: kinds of damage.
        seed: of the damage.
        clips_at_once: clips in one batch.
        progress: is told how many clips are done.

    Returns:
        Predictions by level of damage, `CLEAN` among them; and clips that could not be read, with the reason.

    Raises:
        UserError: no clip can be read.
    """
    replica = Replica(model)
    levels = [CLEAN, *(Level(corruption.name, level) for corruption in corruptions for level in corruption.levels)]
    found: dict[Level, list[Mapping[str, npt.NDArray]]] = {level: [] for level in levels}
    clip_ids: list[str] = []
    labels: list[npt.NDArray[np.int64]] = []
    unreadable: list[tuple[str, str]] = []
    passes = 0
    for batch in _batches(loader, rows, clips_at_once):
        valid = batch["valid"]
        unreadable += zip(batch["clip_id"][~valid].tolist(), batch["reason"][~valid].tolist(), strict=True)
        readable = {name: column[valid] for name, column in batch.items()}
        clip_ids += readable["clip_id"].tolist()
        labels.append(readable["labels"])
        for level in levels:
            if valid.any():
                found[level].append(replica(_damaged(readable, level, seed)))
            passes += len(valid)
            progress(passes // len(levels))
    if not clip_ids:
        raise UserError(f"none of {rows.num_rows} clips can be read, the first because of: {unreadable[0][1]}")
    truth = np.concatenate(labels)
    return {level: _predictions(model, clip_ids, truth, parts) for level, parts in found.items()}, unreadable


def assess(
    model: TrainedModel,
    predictions: Mapping[Level, Predictions],
    corruptions: Sequence[Corruption],
    *,
    resampling: Resampling,
    notes: Sequence[str] = (),
) -> Robustness:
    """Accuracies with confidence intervals; every resample has the same clips at all levels of damage."""
    runs = {f"{level.corruption} {level.level:g}": one for level, one in predictions.items()}
    compared = compare(runs, resampling=resampling)
    clean = predictions[CLEAN]
    return Robustness(
        model=model.config.model.name,
        checkpoint=model.place,
        corruptions=tuple(corruptions),
        assessed=dict(zip(predictions, compared.values(), strict=True)),
        label_map=clean.label_map,
        num_clips=len(clean.clip_ids),
        confidence=resampling.level,
        notes=tuple(notes),
    )


def _damaged(batch: Mapping[str, npt.NDArray], at: Level, seed: int) -> Mapping[str, npt.NDArray]:
    return batch if at.corruption is None else corrupt(batch, CORRUPTIONS[at.corruption], at.level, seed=seed)


def _batches(loader: ClipLoader, rows: pa.Table, size: int) -> Iterator[dict[str, npt.NDArray]]:
    for start in range(0, rows.num_rows, size):
        yield loader(rows.slice(start, size))


def _predictions(
    model: TrainedModel,
    clip_ids: Sequence[str],
    labels: npt.NDArray[np.int64],
    parts: Sequence[Mapping[str, npt.NDArray]],
) -> Predictions:
    label_map = model.label_map
    return Predictions(
        clip_ids=tuple(clip_ids),
        labels=labels,
        probabilities={
            field: np.concatenate([part[f"probabilities_{field}"] for part in parts]) for field in label_map.fields
        },
        num_views=np.ones(len(clip_ids), np.int32),
        label_map=label_map,
        checkpoint=model.fingerprint,
    )
