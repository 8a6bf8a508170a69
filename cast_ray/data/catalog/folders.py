"""Which clips a user's own dataset has, read from its folders alone.

Layout: <videos>/train/<class>/<clip>.mp4 and <videos>/validation/<class>/<clip>.mp4 (also called val). The folders of
classes name the label; the classes are those in train, in alphabetical order.
"""

from __future__ import annotations

import os
from pathlib import Path

from cast_ray.data.catalog.entries import Entry, Source, build_manifest, names_in_training
from cast_ray.data.catalog.files import VideoFolder
from cast_ray.data.manifest import TRAIN, VALIDATION, Manifest
from cast_ray.errors import UserError

__all__ = ["read_folders"]

NAMES = {TRAIN: ("train",), VALIDATION: ("validation", "val")}


def read_folders(videos: Path | str) -> Manifest:
    """Read a dataset that has one folder per class; a clip's id is its path below `videos` without suffix.

    Args:
        videos: folder with the folders train and validation.

    Raises:
        UserError: a folder is missing or there are two for validation, a video lies outside the folders of classes, a
            class has no training clip, or a split is empty.
    """
    folder = VideoFolder.scan(videos, depth=3)  # one too many, to find what lies too deep
    sources = []
    for split, names in NAMES.items():
        present = [name for name in names if os.path.isdir(os.path.join(folder.path, name))]
        if len(present) != 1:
            raise UserError(
                f"'{folder.path}' has {' and '.join(present) or f'no folder {names[0]}'}; give it the folders "
                "train and validation, and in each one folder per class"
            )
        sources.append(_read_split(folder, present[0], split))
    return build_manifest(sources, folder, names_in_training(sources))


def _read_split(folder: VideoFolder, name: str, split: str) -> Source:
    path = Path(folder.path) / name
    entries = []
    for key in sorted(folder.files):
        top, *label, _ = key.split("/")
        if top != name:
            continue
        if len(label) != 1:
            raise UserError(
                f"'{path}' has the video '{folder.files[key]}', which is not directly in a class's folder; move it"
            )
        entries.append(Entry(place=f"file '{folder.files[key]}'", clip_id=key, names=(key,), labels=(label[0],)))
    return Source(path=path, split=split, entries=entries)
