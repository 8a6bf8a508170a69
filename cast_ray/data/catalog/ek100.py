"""Which clips EPIC-KITCHENS-100 has, read from its official CSV files.

Layout (https://github.com/epic-kitchens/epic-kitchens-100-annotations): EPIC_100_train.csv and
EPIC_100_validation.csv have one row per action segment, EPIC_100_verb_classes.csv and EPIC_100_noun_classes.csv the
class names. The videos must be cut already: one file per segment, <narration_id>.mp4.
"""

from __future__ import annotations

from pathlib import Path

from cast_ray.data.catalog.files import VideoFolder, find_annotation, index_names, read_csv
from cast_ray.data.manifest import TRAIN, VALIDATION, Clip, Manifest
from cast_ray.errors import UserError
from cast_ray.labels import NOUN, VERB, LabelMap

__all__ = ["read_ek100"]

SEGMENT_COLUMNS = ("narration_id", "participant_id", "video_id", "verb_class", "noun_class")


def read_ek100(videos: Path | str, annotations: Path | str) -> Manifest:
    """Read a dataset in the layout of EPIC-KITCHENS-100, with its videos cut into one file per segment.

    Args:
        videos: folder with one video file per segment.
        annotations: folder with the four official CSV files.

    Raises:
        UserError: a folder, file or video is missing, the videos are not cut, a file is not what it should be, a
            class is not among the class names, or a split is empty.
    """
    folder = VideoFolder.scan(videos)
    label_map = LabelMap({field: _read_classes(annotations, field) for field in (VERB, NOUN)})
    clips: list[Clip] = []
    for split in (TRAIN, VALIDATION):
        clips += _read_split(find_annotation(annotations, f"EPIC_100_{split}.csv"), split, folder, label_map)
    return Manifest(clips=tuple(clips), label_map=label_map)


def _read_classes(annotations: Path | str, field: str) -> tuple[str, ...]:
    path = find_annotation(annotations, f"EPIC_100_{field}_classes.csv")
    rows = read_csv(path, ("id", "key"))
    return index_names([(_whole_number(row, "id", path, line), row["key"]) for line, row in rows], path=path)


def _read_split(path: Path, split: str, folder: VideoFolder, label_map: LabelMap) -> list[Clip]:
    rows = list(read_csv(path, SEGMENT_COLUMNS))
    if not rows:
        raise UserError(f"'{path}' has no segments; a split must not be empty")
    labels = []
    for line, row in rows:
        indices = tuple(_whole_number(row, f"{field}_class", path, line) for field in label_map.fields)
        label_map.check(indices, where=f"'{path}', line {line}: segment '{row['narration_id']}'")
        labels.append(indices)
    ids = [row["narration_id"] for _, row in rows]
    if not any(narration_id in folder.names for narration_id in ids):
        _refuse_untrimmed([row for _, row in rows], folder)
    folder.require(ids, annotations=path)
    return [
        Clip(clip_id=narration_id, uri=folder.uri(narration_id), labels=indices, split=split)
        for narration_id, indices in zip(ids, labels, strict=True)
    ]


def _refuse_untrimmed(rows: list[dict[str, str]], folder: VideoFolder) -> None:
    """Raise `UserError` if the folder holds whole recordings: by video id, or in one subfolder per participant."""
    video_ids = {row["video_id"] for row in rows} & folder.names.keys()
    participants = {row["participant_id"] for row in rows} & folder.subfolders
    if video_ids or participants:
        raise UserError(
            f"'{folder.path}' holds untrimmed recordings ({', '.join(sorted(video_ids or participants)[:5])} ...), "
            "but one file per segment is needed, named <narration_id>.mp4; cutting recordings into segments is part of "
            "data preparation, so prepare the videos first and give the folder with the cut files"
        )


def _whole_number(row: dict[str, str], column: str, path: Path, line: int) -> int:
    try:
        return int(row[column])
    except ValueError as error:
        raise UserError(f"'{path}', line {line}: {column} is {row[column]!r}; it must be a whole number") from error
