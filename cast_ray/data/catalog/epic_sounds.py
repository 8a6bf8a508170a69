"""Which clips EPIC-SOUNDS and the sounds of HD-EPIC have, read from their official CSV files.

Layout (https://github.com/epic-kitchens/epic-sounds-annotations): EPIC_Sounds_train.csv and
EPIC_Sounds_validation.csv have one row per sound in the whole recordings of EPIC-KITCHENS-100, <video_id>.MP4. Of
HD-EPIC (https://github.com/hd-epic/hd-epic-annotations, folder audio-annotations), HD_EPIC_Sounds.csv has the same
columns without an id and the same classes; its recordings are <video_id>.mp4, and it has no training set.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from cast_ray.data.catalog.entries import Entry, OnSkip, Source, build_manifest, refuse
from cast_ray.data.catalog.files import find_annotation, index_names, read_csv, seconds, whole_number
from cast_ray.data.catalog.videos import VideoFolder
from cast_ray.data.manifest import TRAIN, VALIDATION, Manifest
from cast_ray.errors import UserError
from cast_ray.labels import LABEL, LabelMap

__all__ = ["EPIC_SOUNDS", "read_epic_sounds", "read_hd_epic_sounds"]

COLUMNS = ("video_id", "start_timestamp", "stop_timestamp", "class", "class_id")

EPIC_SOUNDS = (
    "metal-only collision",
    "scrub / scrape / scour / wipe",
    "cut / chop",
    "open / close",
    "rustle",
    "water",
    "plastic-only collision",
    "footstep",
    "stir / mix / whisk",
    "slide object",
    "metal / wood collision",
    "metal / plastic collision",
    "metal / ceramic collision",
    "background",
    "ceramic-only collision",
    "beep",
    "click",
    "metal / glass collision",
    "paper-only collision",
    "pour",
    "glass-only collision",
    "wood-only collision",
    "plastic / paper collision",
    "metal / paper collision",
    "human",
    "metal / cloth collision",
    "plastic / ceramic collision",
    "plastic / wood collision",
    "metal / marble collision",
    "sizzling / boiling",
    "ceramic / glass collision",
    "plastic / marble collision",
    "plastic / glass collision",
    "kettle / mixer / appliance",
    "ceramic / wood collision",
    "kneading",
    "cloth-only collision",
    "ceramic / marble collision",
    "glass / marble collision",
    "wood / glass collision",
    "hoover / fan",
    "spray",
    "zip",
    "drink / eat",
)
"""The 44 classes in the order of `class_id`, for those that a part of the dataset does not have."""


def read_epic_sounds(videos: Path | str, annotations: Path | str, *, on_skip: OnSkip = refuse) -> Manifest:
    """Read a dataset in the layout of EPIC-SOUNDS.

    Cut videos are not taken: the ids of the sounds are those of other segments in EPIC-KITCHENS-100.

    Args:
        videos: folder with the whole recordings, such as P01/P01_01.MP4 or P01/videos/P01_01.MP4.
        annotations: folder with the two official CSV files.
        on_skip: what to do with clips that cannot be used; see `cast_ray.data.catalog.entries.OnSkip`.

    Raises:
        UserError: a folder, file or video is missing, a file is not what it should be, a class has two names, or a
            split is empty.
    """
    paths = {split: find_annotation(annotations, f"EPIC_Sounds_{split}.csv") for split in (TRAIN, VALIDATION)}
    return _read(videos, paths, ("annotation_id", *COLUMNS), lambda row, _: row["annotation_id"], on_skip)


def read_hd_epic_sounds(videos: Path | str, annotations: Path | str, *, on_skip: OnSkip = refuse) -> Manifest:
    """Read the sounds of HD-EPIC, all for validation; a clip's id is its recording's with the line in the file.

    Args:
        videos: folder with the whole recordings, such as Videos/P01/P01-20240202-110250.mp4.
        annotations: folder with HD_EPIC_Sounds.csv.
        on_skip: what to do with clips that cannot be used; see `cast_ray.data.catalog.entries.OnSkip`.

    Raises:
        UserError: as `read_epic_sounds`.
    """
    paths = {VALIDATION: find_annotation(annotations, "HD_EPIC_Sounds.csv", "HD-EPIC-Sounds.csv")}
    return _read(videos, paths, COLUMNS, lambda row, line: f"{row['video_id']}-sound-{line}", on_skip)


def _read(
    videos: Path | str,
    paths: dict[str, Path],
    columns: Sequence[str],
    clip_id: Callable[[dict[str, str], int], str],
    on_skip: OnSkip,
) -> Manifest:
    folder = VideoFolder.scan(videos)
    names = dict(enumerate(EPIC_SOUNDS))
    named: dict[int, str] = {}
    sources = []
    for split, path in paths.items():
        entries = []
        for line, row in read_csv(path, columns):
            where = f"'{path}', line {line}"
            label = whole_number(row["class_id"], f"{where}: class_id")
            if label in named and names[label] != row["class"]:
                raise UserError(
                    f"{where}: class {label} is called {row['class']!r}, but {names[label]!r} in {named[label]}; "
                    "correct one of them"
                )
            names[label] = row["class"]
            named.setdefault(label, where)
            start_s, stop_s = (seconds(row[name], f"{where}: {name}") for name in ("start_timestamp", "stop_timestamp"))
            entries.append(
                Entry(
                    place=f"line {line}",
                    clip_id=clip_id(row, line),
                    names=(row["video_id"],),
                    labels=(label,),
                    segment=(start_s, stop_s),
                    cut=False,
                )
            )
        sources.append(Source(path=path, split=split, entries=entries))
    label_map = LabelMap({LABEL: index_names(names.items(), path=sources[0].path)})
    return build_manifest(sources, folder, label_map, on_skip)
