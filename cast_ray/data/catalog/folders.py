"""Which clips a user's own dataset has, read from its folders alone.

Layout: <videos>/train/<class>/<clip>.mp4 and <videos>/validation/<class>/<clip>.mp4 (also called val). The folders of
classes name the label; the classes are those in train, in alphabetical order.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from cast_ray.data.catalog.entries import Entry, OnSkip, Source, build_manifest, names_in_training, refuse
from cast_ray.data.catalog.videos import OTHER_SUFFIX, VideoFolder, examples
from cast_ray.data.manifest import TRAIN, VALIDATION, Manifest
from cast_ray.errors import UserError

__all__ = ["read_folders"]

NAMES = {TRAIN: ("train",), VALIDATION: ("validation", "val")}


def read_folders(videos: Path | str, *, on_skip: OnSkip = refuse) -> Manifest:
    """Read a dataset that has one folder per class; a clip's id is its path below `videos` without suffix.

    Args:
        videos: folder with the folders train and validation.
        on_skip: what to do with everything in the folders that does not become a clip; see
            `cast_ray.data.catalog.entries.OnSkip`. Hidden files, and files beside train and validation that are no
            videos, are nobody's clips and are not mentioned.

    Raises:
        UserError: a folder is missing or there are two for validation, a class has no training clip, or a split is
            empty.
    """
    folder = VideoFolder.scan(videos)
    splits = {}
    for split, names in NAMES.items():
        present = [name for name in names if os.path.isdir(os.path.join(folder.path, name))]
        if len(present) != 1:
            raise UserError(
                f"'{folder.path}' has {' and '.join(present) or f'no folder {names[0]}'}; give it the folders "
                "train and validation, and in each one folder per class"
            )
        splits[split] = present[0]
    for what, paths in _left_out(folder, tuple(splits.values())):
        on_skip(
            f"'{folder.path}' has {len(paths)} {what}: {examples(paths)}; the clips are <split>/<class>/<clip>.mp4: "
            "move, rename or remove what is not, or choose to leave it out"
        )
    sources = [_read_split(folder, name, split) for split, name in splits.items()]
    return build_manifest(sources, folder, names_in_training(sources), on_skip)


def _read_split(folder: VideoFolder, name: str, split: str) -> Source:
    entries = [
        Entry(
            place=f"file '{folder.files[key]}'",
            clip_id=key,
            file=os.path.join(folder.path, folder.files[key]),
            labels=(key.split("/")[1],),
        )
        for key in sorted(folder.files)
        if key.startswith(f"{name}/") and key.count("/") == 2
    ]
    return Source(path=Path(folder.path) / name, split=split, entries=entries)


def _left_out(folder: VideoFolder, splits: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """What does not become a clip, and the paths of it."""
    of_splits = tuple(f"{split}/" for split in splits)
    beside = [path for path in folder.subfolders if "/" not in path and path not in splits]
    misplaced = [
        file
        for key, file in folder.files.items()
        if "/" not in key or (key.startswith(of_splits) and key.count("/") == 1)
    ]
    used = {key.rpartition("/")[0] for key in folder.files}
    # Of a split without any clip, only that is worth saying.
    filled = tuple(split for split in of_splits if any(path.startswith(split) for path in used))
    unused = [path for path in folder.subfolders if path.startswith(filled) and path not in used]
    found = {
        f"folders beside {' and '.join(splits)}": beside,
        "videos that are not directly in a class's folder": misplaced,
        "folders of classes without a video": unused,
    }
    for what, paths in folder.ignored.items():
        top = what != OTHER_SUFFIX  # a README beside the splits is no clip
        found[what] = [path for path in paths if path.startswith(of_splits) or (top and "/" not in path)]
    yield from ((what, sorted(paths)) for what, paths in found.items() if paths)
