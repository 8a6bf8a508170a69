"""How many clips a recipe's dataset has, and how long they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cast_ray.data.catalog.counts import PUBLISHED
from cast_ray.data.manifest import TRAIN, VALIDATION
from cast_ray.errors import UserError
from cast_ray.models.listing import class_counts
from cast_ray.planning.known import ASSUMED, Known

__all__ = ["Dataset", "dataset_for"]


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """What of a dataset matters to its cost."""

    train_clips: Known
    validation_clips: Known
    num_classes: Mapping[str, int]
    """Classes by label field."""
    seconds: Known
    """Mean length of a clip."""
    fps: Known
    """Frames per second of the source."""

    @property
    def frames(self) -> float:
        """Mean frames of a clip."""
        return self.seconds.value * self.fps.value


PUBLISHED_AS: Mapping[str, tuple[str, float, float]] = {
    "ssv2": ("ssv2", 4.0, 12.0),
    "k400": ("kinetics400", 10.0, 30.0),
    "msca": ("kinetics400", 10.0, 30.0),
    "ek100": ("ek100", 3.1, 50.0),
    "ek100_sound": ("ek100", 3.1, 50.0),
    "epic_sounds": ("epic_sounds", 4.9, 50.0),
    "vggsound": ("vggsound", 10.0, 30.0),
    "ucf101": ("ucf101-1", 7.2, 25.0),
}
"""By recipe: name in `PUBLISHED`, about how many seconds a clip has, and frames per second."""


def dataset_for(
    recipe: str,
    *,
    train_clips: int | None,
    validation_clips: int | None,
    classes: tuple[int, ...] | None,
    seconds: float | None,
    fps: float | None,
) -> Dataset:
    """The published dataset of a recipe, with what the user knows better; or what the user says of another one.

    Raises:
        UserError: a number is missing and cannot be looked up.
    """
    usual = _published(recipe)
    given = {
        "--train-clips": train_clips,
        "--validation-clips": validation_clips,
        "--classes": classes,
        "--clip-seconds": seconds,
        "--clip-fps": fps,
    }
    missing = [flag for flag, value in given.items() if value is None]
    if usual is None and missing:
        raise UserError(
            f"no published numbers belong to '{recipe}'; give {' '.join(missing)}, or one of the recipes "
            f"{', '.join(PUBLISHED_AS)}"
        )
    return Dataset(
        train_clips=_known(train_clips, "--train-clips", usual.train_clips if usual else None),
        validation_clips=_known(validation_clips, "--validation-clips", usual.validation_clips if usual else None),
        num_classes=usual.num_classes if usual and classes is None else class_counts(classes or ()),
        seconds=_known(seconds, "--clip-seconds", usual.seconds if usual else None),
        fps=_known(fps, "--clip-fps", usual.fps if usual else None),
    )


def _published(recipe: str) -> Dataset | None:
    if recipe not in PUBLISHED_AS:
        return None
    name, seconds, fps = PUBLISHED_AS[recipe]
    published = PUBLISHED[name]
    origin = f"published: {published.name}, {published.source}"
    return Dataset(
        train_clips=Known(value=published.clips[TRAIN], origin=origin),
        validation_clips=Known(value=published.clips[VALIDATION], origin=origin),
        num_classes=published.classes,
        seconds=Known(value=seconds, origin=ASSUMED),
        fps=Known(value=fps, origin=ASSUMED),
    )


def _known(value: float | None, flag: str, usual: Known | None) -> Known:
    if value is None and usual is not None:
        return usual
    if value is None or not value > 0:
        raise UserError(f"{flag} is {value}; give a number above 0")
    return Known(value=value, origin=f"given by {flag}")
