"""Which headline figures a model gets: each a share of its clips, in a form that resamples can be taken of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cast_ray.data.catalog.ek100 import Ek100Subsets
from cast_ray.errors import UserError
from cast_ray.evaluation.actions import action_hits
from cast_ray.evaluation.metrics import TOP_K, check_labelled, top_k_hits
from cast_ray.evaluation.predictions import Predictions
from cast_ray.labels import ACTION, NOUN, VERB

__all__ = ["Figure", "action_figures", "field_figures", "figures", "subset_figures"]


@dataclass(frozen=True, kw_only=True)
class Figure:
    """The share of right clips among the n clips of a dataset, among some of them, or averaged over classes."""

    right: npt.NDArray[np.bool_]
    """[n] whether a clip is right."""
    counted: npt.NDArray[np.bool_] | None = None
    """[n] which clips count; None: all."""
    classes: npt.NDArray[np.int64] | None = None
    """[n] true classes, if the figure is the mean of the shares within each class that has clips."""

    @property
    def value(self) -> float:
        """From 0 to 1; NaN if no clip counts."""
        right, classes = self.right, self.classes
        if self.counted is not None:
            right, classes = right[self.counted], None if classes is None else classes[self.counted]
        if not len(right):
            return float("nan")
        if classes is None:
            return float(right.mean())
        clips = np.bincount(classes)
        return float((np.bincount(classes, right)[clips > 0] / clips[clips > 0]).mean())


def figures(predictions: Predictions, subsets: Ek100Subsets | None = None) -> dict[str, Figure]:
    """All figures by name, those of `Metrics.summary` first, then those of the subsets of EPIC-KITCHENS-100.

    Args:
        predictions: of one model.
        subsets: unseen participants and tail classes, if the dataset is EPIC-KITCHENS-100.

    Raises:
        UserError: the truth of a clip is unknown, or there are subsets and no verbs and nouns.
    """
    check_labelled(predictions)
    found = field_figures(predictions) | action_figures(predictions)
    return found if subsets is None else found | subset_figures(predictions, found, subsets)


def field_figures(predictions: Predictions) -> dict[str, Figure]:
    """Top-1, top-5 (from five classes on) and mean class accuracy of every label field."""
    found = {}
    for field, num_classes in predictions.label_map.num_classes.items():
        true, right = predictions.true(field), predictions.right(field)
        found[f"{field}_top1"] = Figure(right=right)
        if num_classes >= TOP_K:
            found[f"{field}_top5"] = Figure(right=top_k_hits(true, predictions.probabilities[field], TOP_K))
        found[f"{field}_mean_class_accuracy"] = Figure(right=right, classes=true)
    return found


def action_figures(predictions: Predictions) -> dict[str, Figure]:
    """Top-1 and top-5 (from five pairs on) of the action, or nothing if there are no verbs and nouns."""
    sizes = predictions.label_map.num_classes
    if not {VERB, NOUN} <= sizes.keys():
        return {}
    ks = (1, TOP_K) if sizes[VERB] * sizes[NOUN] >= TOP_K else (1,)
    return {f"{ACTION}_top{k}": Figure(right=hits) for k, hits in action_hits(predictions, ks).items()}


def subset_figures(predictions: Predictions, overall: Mapping[str, Figure], subsets: Ek100Subsets) -> dict[str, Figure]:
    """Top-1 of verb, noun and action on unseen participants and on tail classes, as the official evaluation has them.

    Each is a share of clips and no mean over classes. An action is in the tail if its verb or its noun is
    (https://github.com/epic-kitchens/C1-Action-Recognition, utils/metrics.py).

    Args:
        predictions: of one model, with narration ids as clip ids.
        overall: the figures of all clips.
        subsets: the official lists.

    Raises:
        UserError: there are no verbs and nouns, or a list names a class that there is not.
    """
    if not {VERB, NOUN} <= predictions.label_map.num_classes.keys():
        raise UserError(
            f"EPIC-KITCHENS-100 has verbs and nouns, these predictions are for {list(predictions.label_map.fields)}; "
            "give its annotations only with its predictions"
        )
    for field, tail in ((VERB, subsets.tail_verbs), (NOUN, subsets.tail_nouns)):
        if max(tail, default=0) >= predictions.label_map.num_classes[field]:
            raise UserError(
                f"the tail {field}s go up to {max(tail)}, the predictions have "
                f"{predictions.label_map.num_classes[field]} {field} classes; give the annotations of their dataset"
            )
    participants = [clip_id.partition("_")[0] for clip_id in predictions.clip_ids]
    unseen = _among(participants, subsets.unseen_participants)
    tail_verb = _among(predictions.true(VERB).tolist(), subsets.tail_verbs)
    tail_noun = _among(predictions.true(NOUN).tolist(), subsets.tail_nouns)
    chosen = {
        f"{name}_{of}_top1": (of, counted)
        for name, parts in (
            ("unseen", {VERB: unseen, NOUN: unseen, ACTION: unseen}),
            ("tail", {VERB: tail_verb, NOUN: tail_noun, ACTION: tail_verb | tail_noun}),
        )
        for of, counted in parts.items()
    }
    return {name: Figure(right=overall[f"{of}_top1"].right, counted=counted) for name, (of, counted) in chosen.items()}


def _among(values: Iterable[object], wanted: frozenset) -> npt.NDArray[np.bool_]:
    return np.array([value in wanted for value in values])
