"""What the owner of a dataset should know before training, said from its figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from cast_ray.data.inspection.summary import Summary
from cast_ray.data.manifest import TRAIN

__all__ = ["warnings_about"]

NAMED = 8
"""Classes that a warning names; the tables have all of them."""


def warnings_about(summary: Summary) -> list[str]:
    """One sentence for each thing that is probably not meant; without any, an empty list."""
    return [*_about_splits(summary), *_about_classes(summary), *_about_overlaps(summary), *_about_rates(summary)]


def _about_splits(summary: Summary) -> Iterator[str]:
    for name, split in summary.splits.items():
        if split.quarantined == split.clips:
            yield f"split '{name}' has no clip that can be used: all {split.clips} are quarantined"
    if TRAIN not in summary.splits:
        yield f"there is no split '{TRAIN}', so nothing can be trained; there is {', '.join(summary.splits)}"


def _about_classes(summary: Summary) -> Iterator[str]:
    """Classes that cannot be learnt, or that nobody will notice whether they were."""
    others = [name for name in summary.splits if name != TRAIN]
    for field, classes in summary.classes.items():
        if TRAIN in summary.splits:
            lacking = [each for each in classes if not each.clips[TRAIN]]
            scored = [each for each in lacking if any(each.clips.values())]
            if lacking:
                also = f", {len(scored)} of them have clips in {' or '.join(others)}" if scored else ""
                names = _listed(each.name for each in [*scored, *(each for each in lacking if each not in scored)])
                yield f"{len(lacking)} of {len(classes)} classes of {field} have no training clip{also}: {names}"
        for split in others:
            only = [each.name for each in classes if not each.clips[split] and each.clips.get(TRAIN)]
            if only:
                share = f"{len(only)} of {len(classes)} classes of {field}"
                yield f"{share} have training clips, none in {split}: {_listed(only)}"


def _about_overlaps(summary: Summary) -> Iterator[str]:
    if summary.overlaps:
        counts = Counter(overlap.split for overlap in summary.overlaps)
        first = summary.overlaps[0]
        yield (
            f"splits share content: {' and '.join(f'{count} of {split}' for split, count in counts.items())} are clips "
            f"with seconds of a file that another split shows too, for example '{first.clip_id}' ({first.split}) and "
            f"'{first.other_clip_id}' ({first.other_split})"
        )


def _about_rates(summary: Summary) -> Iterator[str]:
    if summary.fps.unknown:
        yield (
            f"{summary.fps.unknown} clips have no known frame rate: their seconds are not counted, and a model that "
            "needs the times of frames cannot use them"
        )


def _listed(names: Iterable[str]) -> str:
    every: Sequence[str] = [f"'{name}'" for name in names]
    more = f" and {len(every) - NAMED} more (--all-classes shows them)" if len(every) > NAMED else ""
    return ", ".join(every[:NAMED]) + more
