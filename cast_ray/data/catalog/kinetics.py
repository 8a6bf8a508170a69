"""Which clips Kinetics-400, -600 and -700 and their part Kinetics-Sounds have, read from the official CSV files.

Layout (annotations/train.csv and val.csv of https://github.com/cvdfoundation/kinetics-dataset, kinetics-600_train.csv
and so on of https://github.com/activitynet/ActivityNet, Crawler/Kinetics/data): a header and the columns label,
youtube_id, time_start, time_end, split. A clip's video is <youtube_id>_<start>_<end>.mp4 with seconds of six digits, or
<youtube_id>.mp4, both cut to the clip, in one folder, in one per split or class, or <split>/<class>.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cast_ray.data.catalog.entries import Entry, OnSkip, Source, build_manifest, names_in_training, refuse
from cast_ray.data.catalog.files import find_annotation, read_csv, seconds
from cast_ray.data.catalog.videos import VideoFolder
from cast_ray.data.manifest import TRAIN, VALIDATION, Manifest
from cast_ray.errors import UserError
from cast_ray.labels import LABEL, LabelMap

__all__ = ["KINETICS_SOUNDS", "read_kinetics", "read_kinetics_sounds"]

COLUMNS = ("label", "youtube_id", "time_start", "time_end")
FILES = {TRAIN: ("train",), VALIDATION: ("val", "validate")}
PREFIXES = ("", "kinetics_", "kinetics-400_", "kinetics-600_")

KINETICS_SOUNDS = (
    "blowing nose",
    "blowing out candles",
    "bowling",
    "chopping wood",
    "dribbling basketball",
    "laughing",
    "mowing lawn",
    "playing accordion",
    "playing bagpipes",
    "playing bass guitar",
    "playing clarinet",
    "playing drums",
    "playing guitar",
    "playing harmonica",
    "playing keyboard",
    "playing organ",
    "playing piano",
    "playing saxophone",
    "playing trombone",
    "playing trumpet",
    "playing violin",
    "playing xylophone",
    "ripping paper",
    "shoveling snow",
    "shuffling cards",
    "singing",
    "stomping grapes",
    "tap dancing",
    "tapping guitar",
    "tapping pen",
    "tickling",
)
"""The 31 classes in the names of Kinetics-400 (https://github.com/IBM/AdaMML/issues/3).

Arandjelovic and Zisserman, 2017, list 34 in the names of an earlier release. 31 have a successor; "fingerpicking",
"patting" and "typing" have none. Work with 32 classes adds "strumming guitar" for "fingerpicking"
(https://github.com/pritamqu/CrissCross/issues/4).
"""


def read_kinetics(
    videos: Path | str,
    annotations: Path | str,
    *,
    classes: Sequence[str] | None = None,
    on_skip: OnSkip = refuse,
) -> Manifest:
    """Read a dataset in the layout of Kinetics; the validation set is `val.csv`, the test set is not read.

    Args:
        videos: folder below which the clips' files lie.
        annotations: folder with train.csv and val.csv (also accepted: validate.csv, and the prefixes "kinetics_",
            "kinetics-400_" and "kinetics-600_").
        classes: the classes to keep, in the order of their indices; None keeps all, in alphabetical order.
        on_skip: what to do with clips that cannot be used, above all those that have gone from YouTube; see
            `cast_ray.data.catalog.entries.OnSkip`.

    Raises:
        UserError: a folder, file or video is missing, a file is not what it should be, one of `classes` or a class of
            the validation clips has no training clip, or a split is empty.
    """
    folder = VideoFolder.scan(videos)
    sources = [_read_split(annotations, split, classes) for split in (TRAIN, VALIDATION)]
    label_map = names_in_training(sources)
    if classes is not None:
        absent = [name for name in classes if name not in label_map.names[LABEL]]
        if absent:
            raise UserError(
                f"'{sources[0].path}' has no clips of {absent}; give the annotations that have these classes"
            )
        label_map = LabelMap({LABEL: tuple(classes)})
    return build_manifest(sources, folder, label_map, on_skip)


def read_kinetics_sounds(videos: Path | str, annotations: Path | str, *, on_skip: OnSkip = refuse) -> Manifest:
    """Read the clips of Kinetics-400 whose class is one of the 31 of Kinetics-Sounds; arguments as `read_kinetics`."""
    return read_kinetics(videos, annotations, classes=KINETICS_SOUNDS, on_skip=on_skip)


def _read_split(annotations: Path | str, split: str, classes: Sequence[str] | None) -> Source:
    path = find_annotation(annotations, *(f"{prefix}{name}.csv" for prefix in PREFIXES for name in FILES[split]))
    wanted = None if classes is None else frozenset(classes)
    entries = [
        _entry(row, f"line {line}", f"'{path}', line {line}")
        for line, row in read_csv(path, COLUMNS)
        if wanted is None or row["label"] in wanted
    ]
    return Source(path=path, split=split, entries=entries)


def _entry(row: dict[str, str], place: str, where: str) -> Entry:
    start_s, stop_s = (seconds(row[column], f"{where}: {column}") for column in ("time_start", "time_end"))
    clip_id = f"{row['youtube_id']}_{int(start_s):06d}_{int(stop_s):06d}"
    return Entry(
        place=place,
        clip_id=clip_id,
        names=(clip_id, row["youtube_id"]),
        labels=(row["label"],),
        segment=(start_s, stop_s),
    )
