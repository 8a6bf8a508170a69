"""How the clips that annotation files name become a manifest: the checks that every reader shares."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cast_ray.data.catalog.videos import NOT_UTF8, VIDEO_SUFFIXES, VideoFolder, below, examples
from cast_ray.data.manifest import TRAIN, Clip, Manifest
from cast_ray.errors import UserError
from cast_ray.labels import LABEL, LabelMap

__all__ = ["Entry", "OnSkip", "Source", "build_manifest", "names_in_training", "refuse"]

OnSkip = Callable[[str], object]
"""What a reader calls with one sentence for all clips of a file that cannot be used for the same reason.

If it returns, the clips are left out: `on_skip=print` reads what is there and says what is not. The default `refuse`
raises.
"""

EMPTY = "a segment that does not end after it begins"
REPEATED = "an id that an earlier clip has"


def refuse(report: str) -> None:
    """Raise `UserError`: no clip is left out unless the caller says so."""
    raise UserError(report)


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One clip as an annotation file names it."""

    place: str
    """Where in the file it is, for messages: "line 3"."""
    clip_id: str
    names: tuple[str, ...] = ()
    """What its video file may be called, without suffix, best first; see `VideoFolder.find`."""
    file: str | None = None
    """Absolute path of its video file, if the reader has found it; else `names` are looked for."""
    labels: tuple[int | str, ...]
    """One index or class name per label field."""
    segment: tuple[float | None, float | None] | None = None
    """First and last second in the original recording, None for its beginning and end; None if the annotation file
    does not say."""
    cut: bool = True
    """Whether the video file holds just this clip; else it is the whole recording."""
    problem: str | None = None
    """Why the clip cannot be used, if the reader found out; completes "has clips with ..."."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """The entries that one annotation file has for one split.

    Raises:
        UserError: there is none.
    """

    path: Path
    split: str
    entries: Sequence[Entry]

    def __post_init__(self) -> None:
        if not self.entries:
            raise UserError(f"'{self.path}' has no clips for the split '{self.split}'; a split must not be empty")


def names_in_training(sources: Sequence[Source]) -> LabelMap:
    """Label map of one field: the class names of the training clips in alphabetical order."""
    names = {str(entry.labels[0]) for source in sources if source.split == TRAIN for entry in source.entries}
    return LabelMap({LABEL: tuple(sorted(names))})


def build_manifest(
    sources: Sequence[Source], folder: VideoFolder, label_map: LabelMap, on_skip: OnSkip = refuse
) -> Manifest:
    """The manifest of all entries, in their order.

    Args:
        sources: the annotation files.
        folder: the videos.
        label_map: fields and classes.
        on_skip: what to do with clips that have no video file, an empty segment, a repeated id or a problem.

    Raises:
        UserError: a file has no clip that can be used, a label is unknown, a video's path leads out of the
            folder, two cut clips have one file; or `on_skip` raises it.
    """
    clips: dict[str, Clip] = {}
    first: dict[str, str] = {}
    used: dict[str, str] = {}
    indices = [{name: index for index, name in enumerate(names)} for names in label_map.names.values()]
    for source in sources:
        before = len(clips)
        missing: list[str] = []
        problems: dict[str, list[str]] = defaultdict(list)
        for entry in source.entries:
            where = f"'{source.path}', {entry.place}"
            clip = _clip(entry, where, source.split, folder, label_map, indices)
            problem = _problem(entry)
            if problem is not None:
                problems[problem].append(f"{entry.clip_id} ({entry.place})")
            elif entry.clip_id in first:
                problems[REPEATED].append(f"{entry.clip_id} ({entry.place}, first in {first[entry.clip_id]})")
            elif not clip.uri:
                missing.append(entry.clip_id)
            else:
                if entry.cut:
                    _check_own_file(clip, where, used)
                clips[clip.clip_id] = clip
            first.setdefault(entry.clip_id, where)
        _report(source, missing, problems, folder, on_skip)
        if len(clips) == before:
            raise UserError(f"'{source.path}' has no clip that can be used; a split must not be empty")
    return Manifest(clips=tuple(clips.values()), label_map=label_map)


def _clip(
    entry: Entry,
    where: str,
    split: str,
    folder: VideoFolder,
    label_map: LabelMap,
    indices: Sequence[dict[str, int]],
) -> Clip:
    """The clip of an entry; its URI is empty if there is no file."""
    for name in entry.names:
        below(name, where)
    labels = []
    for field, known, label in zip(label_map.fields, indices, entry.labels, strict=True):
        # Labels of an unusable clip are nobody's concern, and may well be the reason why it is one.
        if isinstance(label, str) and entry.problem is None and label not in known:
            raise UserError(
                f"{where}: {field} {label!r} of clip '{entry.clip_id}' does not occur among the training clips; "
                "correct it, or give the class training clips"
            )
        labels.append(known.get(label, -1) if isinstance(label, str) else label)
    if entry.problem is None:
        label_map.check(labels, where=f"{where}: clip '{entry.clip_id}'")
    start_s, stop_s = (None, None) if entry.cut or entry.segment is None else entry.segment
    return Clip(
        clip_id=entry.clip_id,
        uri=entry.file or folder.find(*entry.names) or "",
        labels=tuple(labels),
        split=split,
        start_s=start_s,
        stop_s=stop_s,
    )


def _problem(entry: Entry) -> str | None:
    start_s, stop_s = entry.segment or (None, None)
    empty = stop_s is not None and stop_s <= (start_s or 0.0)
    return entry.problem or (EMPTY if empty else None)


def _check_own_file(clip: Clip, where: str, used: dict[str, str]) -> None:
    """Raise `UserError` if an earlier clip has the same file; `used` says where each file was named."""
    if clip.uri in used:
        raise UserError(
            f"{where}: clip '{clip.clip_id}' has the video file '{clip.uri}', which {used[clip.uri]} has too; "
            "give each its own file"
        )
    used[clip.uri] = where


def _report(
    source: Source, missing: Sequence[str], problems: dict[str, list[str]], folder: VideoFolder, on_skip: OnSkip
) -> None:
    for problem, clips in problems.items():
        on_skip(
            f"'{source.path}' has {len(clips)} clips of {len(source.entries)} with {problem}: {examples(clips)}; "
            "correct or remove them, or choose to leave them out"
        )
    if missing:
        nameless = folder.ignored.get(NOT_UTF8, [])
        hint = f" (it has {NOT_UTF8}, which nothing finds: {examples(nameless)})" if nameless else ""
        where = f" at most {folder.depth} folders deep ({', '.join(VIDEO_SUFFIXES)})" if folder.depth else ""
        on_skip(
            f"'{source.path}' names {len(missing)} clips of {len(source.entries)} that have no video file in "
            f"'{folder.path}': {examples(missing)}{hint}; add the files{where}, remove "
            "the clips from the annotations, or choose to leave them out"
        )
