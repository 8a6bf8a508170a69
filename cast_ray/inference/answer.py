"""What a model says about a clip: probabilities, and the best classes by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cast_ray.evaluation.actions import top_actions
from cast_ray.labels import ACTION, NOUN, VERB, LabelMap

__all__ = ["Prediction", "Probabilities", "Score", "best_classes"]

Probabilities = Mapping[str, NDArray[np.float32]]
"""Of one clip: label field -> [classes]."""
SHOWN = 5


class Score(NamedTuple):
    """A class and how probable it is."""

    name: str
    probability: float


def best_classes(label_map: LabelMap, probabilities: Probabilities, count: int) -> dict[str, list[Score]]:
    """The `count` most probable classes of every label field, best first; the lower index wins a tie.

    With verb and noun there is also "action", ranked by the product of the two as EPIC-KITCHENS-100 scores it.
    """
    best = {}
    for field, names in label_map.names.items():
        order = np.argsort(-probabilities[field], kind="stable")[:count]
        best[field] = [Score(names[index], float(probabilities[field][index])) for index in order]
    if {VERB, NOUN} <= best.keys():
        pairs, products = top_actions(probabilities[VERB][None], probabilities[NOUN][None], count)
        verbs, nouns = label_map.names[VERB], label_map.names[NOUN]
        best[ACTION] = [
            Score(f"{verbs[verb]} {nouns[noun]}", float(product))
            for (verb, noun), product in zip(pairs[0], products[0], strict=True)
        ]
    return best


@dataclass(frozen=True, kw_only=True, repr=False)
class Prediction:
    """The answer for one clip; it prints as its best classes."""

    clip: str
    """Path, URI or other name of the clip."""
    label_map: LabelMap
    probabilities: Probabilities
    """The mean over the views."""
    views: int
    seconds: float | None
    """How long the clip lasts; None where the file states no frame rate."""
    note: str = ""
    """What to know about it, such as why its sound was not heard."""

    def top(self, count: int = SHOWN) -> dict[str, list[Score]]:
        """See `best_classes`."""
        return best_classes(self.label_map, self.probabilities, count)

    def to_dict(self, count: int = SHOWN) -> dict[str, Any]:
        """What JSON holds of it."""
        best = {
            field: [{"class": score.name, "probability": score.probability} for score in scores]
            for field, scores in self.top(count).items()
        }
        return {
            "clip": self.clip,
            "seconds": self.seconds,
            "views": self.views,
            **({"note": self.note} if self.note else {}),
            "top": best,
        }

    def __repr__(self) -> str:
        length = "" if self.seconds is None else f", {self.seconds:.1f} s"
        lines = [f"{self.clip}{length}, {self.views} view{'' if self.views == 1 else 's'}"]
        lines += [self.note] if self.note else []
        for field, scores in self.top().items():
            lines += [f"{field}:", *(f"  {score.probability:6.1%}  {score.name}" for score in scores)]
        return "\n".join(lines)
