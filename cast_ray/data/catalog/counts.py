"""Whether a dataset is complete: the published numbers of classes and clips."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from cast_ray.data.manifest import TRAIN, VALIDATION, Manifest
from cast_ray.labels import LABEL, NOUN, VERB

__all__ = ["PUBLISHED", "Published", "check_counts"]


@dataclass(frozen=True, kw_only=True)
class Published:
    """What the publishers of a dataset say that it has."""

    name: str
    classes: Mapping[str, int]
    """Label field -> number of classes."""
    clips: Mapping[str, int]
    """Split -> number of clips."""
    source: str
    """Where the numbers are from."""


def _published(name: str, classes: int, train: int, validation: int, source: str) -> Published:
    clips = {TRAIN: train, VALIDATION: validation}
    return Published(name=name, classes={LABEL: classes}, clips=clips, source=source)


UCF = "list files of the dataset"
UNCONFIRMED = "not confirmed by the publishers' own pages"

PUBLISHED: Mapping[str, Published] = {
    "ssv2": _published("Something-Something-V2", 174, 168_913, 24_777, "dataset page"),
    "kinetics400": _published(
        "Kinetics-400", 400, 246_534, 19_906, "github.com/cvdfoundation/kinetics-dataset, arrange_by_classes.py"
    ),
    "ek100": Published(
        name="EPIC-KITCHENS-100",
        classes={VERB: 97, NOUN: 300},
        clips={TRAIN: 67_217, VALIDATION: 9_668},
        source="Damen et al., 2022",
    ),
    "ucf101-1": _published("UCF-101, split 1", 101, 9_537, 3_783, UCF),
    "ucf101-2": _published("UCF-101, split 2", 101, 9_586, 3_734, UCF),
    "ucf101-3": _published("UCF-101, split 3", 101, 9_624, 3_696, UCF),
    "vggsound": _published("VGG-Sound", 309, 183_971, 15_496, "vggsound.csv, github.com/hche11/VGGSound/issues/19"),
    "epic_sounds": _published("EPIC-SOUNDS", 44, 60_055, 8_035, UNCONFIRMED),
    "activitynet": _published("ActivityNet-1.3", 200, 15_410, 7_654, "activity-net.org/download.html"),
    "hd_epic": Published(
        name="HD-EPIC",
        classes={VERB: 106, NOUN: 303},
        clips={VALIDATION: 59_454},
        source=UNCONFIRMED,
    ),
    "hd_epic_sounds": Published(
        name="the sounds of HD-EPIC", classes={LABEL: 44}, clips={VALIDATION: 50_968}, source=UNCONFIRMED
    ),
}
"""By short name. Kinetics-600, Kinetics-700 and Kinetics-Sounds are not here: their counts differ between releases."""


def check_counts(manifest: Manifest, published: Published) -> str | None:
    """A sentence to print if the classes are complete but the clips are not as published, else None.

    A dataset with other classes is somebody's part of it, about which nothing can be said.
    """
    if manifest.label_map.num_classes != dict(published.classes):
        return None
    counts = Counter(clip.split for clip in manifest.clips)
    differing = [
        f"{counts[split]:,} {split} clips instead of {count:,}"
        for split, count in published.clips.items()
        if counts[split] != count
    ]
    if not differing:
        return None
    return (
        f"these are all classes of {published.name}, but {' and '.join(differing)} ({published.source}); results on "
        "part of the clips are not comparable with published ones"
    )
