"""Which clips VGG-Sound has, read from its official CSV file.

Layout (vggsound.csv of https://www.robots.ox.ac.uk/~vgg/data/vggsound/ and of https://github.com/hche11/VGGSound,
folder data): no header; YouTube id, first second, label, "train" or "test". A clip lasts 10 s, its video is
<YouTube id>_<first second in six digits>.mp4.
"""

from __future__ import annotations

from pathlib import Path

from cast_ray.data.catalog.entries import Entry, OnSkip, Source, build_manifest, names_in_training, refuse
from cast_ray.data.catalog.files import find_annotation, read_csv, whole_number
from cast_ray.data.catalog.videos import VideoFolder
from cast_ray.data.manifest import TRAIN, VALIDATION, Manifest
from cast_ray.errors import UserError

__all__ = ["read_vggsound"]

COLUMNS = ("youtube_id", "start_second", "label", "split")
SPLITS = {"train": TRAIN, "test": VALIDATION}


def read_vggsound(videos: Path | str, annotations: Path | str, *, on_skip: OnSkip = refuse) -> Manifest:
    """Read a dataset in the layout of VGG-Sound; the test clips are the validation set.

    Args:
        videos: folder below which the clips' files lie.
        annotations: folder with vggsound.csv.
        on_skip: what to do with clips that cannot be used, above all those that have gone from YouTube; see
            `cast_ray.data.catalog.entries.OnSkip`.

    Raises:
        UserError: a folder, file or video is missing, the file is not what it should be, a test clip's label has no
            training clip, or a split is empty.
    """
    folder = VideoFolder.scan(videos)
    path = find_annotation(annotations, "vggsound.csv")
    entries: dict[str, list[Entry]] = {TRAIN: [], VALIDATION: []}
    for line, row in read_csv(path, COLUMNS, header=False):
        where = f"'{path}', line {line}"
        if row["split"] not in SPLITS:
            raise UserError(f"{where}: the split is {row['split']!r}; it must be 'train' or 'test'")
        start_s = whole_number(row["start_second"], f"{where}: the first second")
        clip_id = f"{row['youtube_id']}_{start_s:06d}"
        entries[SPLITS[row["split"]]].append(
            Entry(place=f"line {line}", clip_id=clip_id, names=(clip_id,), labels=(row["label"],))
        )
    sources = [Source(path=path, split=split, entries=found) for split, found in entries.items()]
    return build_manifest(sources, folder, names_in_training(sources), on_skip)
