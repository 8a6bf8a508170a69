"""Which clips EPIC-KITCHENS-100 has, read from its official CSV files.

Layout (https://github.com/epic-kitchens/epic-kitchens-100-annotations): EPIC_100_train.csv and
EPIC_100_validation.csv have one row per action segment, EPIC_100_verb_classes.csv and EPIC_100_noun_classes.csv the
class names. The videos are either cut, one <narration_id>.mp4 per segment, or the whole recordings <video_id>.MP4,
such as P01/P01_01.MP4 or P01/videos/P01_01.MP4, of which each clip is the part between its timestamps.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cast_ray.data.catalog.entries import Entry, OnSkip, Source, build_manifest, refuse
from cast_ray.data.catalog.files import find_annotation, read_class_names, read_csv, seconds, whole_number
from cast_ray.data.catalog.videos import VideoFolder
from cast_ray.data.manifest import TRAIN, VALIDATION, Manifest
from cast_ray.labels import NOUN, VERB, LabelMap

__all__ = ["Ek100Subsets", "read_ek100", "read_ek100_subsets"]

COLUMNS = ("narration_id", "video_id", "start_timestamp", "stop_timestamp", "verb_class", "noun_class")


@dataclass(frozen=True, kw_only=True)
class Ek100Subsets:
    """What the benchmark reports beside the whole validation set."""

    unseen_participants: frozenset[str]
    """Participants without training clips; a clip id begins with its participant: "P18" in "P18_01_3"."""
    tail_verbs: frozenset[int]
    """Verb classes with few training clips."""
    tail_nouns: frozenset[int]
    """Noun classes with few training clips."""


def read_ek100(videos: Path | str, annotations: Path | str, *, on_skip: OnSkip = refuse) -> Manifest:
    """Read a dataset in the layout of EPIC-KITCHENS-100.

    Args:
        videos: folder with one video file per segment, or with the whole recordings. If it has any cut segment, all
            are expected to be cut.
        annotations: folder with the four official CSV files.
        on_skip: what to do with clips that cannot be used; see `cast_ray.data.catalog.entries.OnSkip`.

    Raises:
        UserError: a folder, file or video is missing, a file is not what it should be, a class is not among the class
            names, or a split is empty.
    """
    folder = VideoFolder.scan(videos)
    label_map = LabelMap(
        {
            field: read_class_names(find_annotation(annotations, f"EPIC_100_{field}_classes.csv"))
            for field in (VERB, NOUN)
        }
    )
    paths = {split: find_annotation(annotations, f"EPIC_100_{split}.csv") for split in (TRAIN, VALIDATION)}
    tables = {split: list(read_csv(path, COLUMNS)) for split, path in paths.items()}
    ids = {column: {row[column] for rows in tables.values() for _, row in rows} for column in COLUMNS[:2]}
    # Neither kind in the folder: name the cut files, of which the user has to be told something anyway.
    cut = bool(ids["narration_id"] & folder.places.keys()) or not ids["video_id"] & folder.places.keys()
    sources = [
        Source(
            path=paths[split],
            split=split,
            entries=[_entry(row, f"line {line}", f"'{paths[split]}', line {line}", cut=cut) for line, row in rows],
        )
        for split, rows in tables.items()
    ]
    return build_manifest(sources, folder, label_map, on_skip)


def read_ek100_subsets(annotations: Path | str) -> Ek100Subsets:
    """Read the official lists of unseen participants and tail classes; `UserError` if one is missing or malformed."""
    unseen = find_annotation(annotations, "EPIC_100_unseen_participant_ids_validation.csv")
    return Ek100Subsets(
        unseen_participants=frozenset(row["participant_id"] for _, row in read_csv(unseen, ("participant_id",))),
        tail_verbs=_tail(annotations, VERB),
        tail_nouns=_tail(annotations, NOUN),
    )


def _tail(annotations: Path | str, field: str) -> frozenset[int]:
    path = find_annotation(annotations, f"EPIC_100_tail_{field}s.csv")
    rows = read_csv(path, (field,))
    return frozenset(whole_number(row[field], f"'{path}', line {line}: {field}") for line, row in rows)


def _entry(row: dict[str, str], place: str, where: str, *, cut: bool) -> Entry:
    start_s, stop_s = (seconds(row[column], f"{where}: {column}") for column in ("start_timestamp", "stop_timestamp"))
    return Entry(
        place=place,
        clip_id=row["narration_id"],
        names=(row["narration_id"] if cut else row["video_id"],),
        labels=tuple(whole_number(row[f"{field}_class"], f"{where}: {field}_class") for field in (VERB, NOUN)),
        segment=(start_s, stop_s),
        cut=cut,
    )
