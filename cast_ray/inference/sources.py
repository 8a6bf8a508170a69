"""Which clips are meant by the paths, folders and URIs that somebody gives."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow.fs as pafs

from cast_ray.data.catalog.videos import VIDEO_SUFFIXES
from cast_ray.data.storage import filesystem, retried
from cast_ray.errors import UserError

__all__ = ["find_clips"]


def find_clips(places: Sequence[str]) -> list[str]:
    """Paths and URIs of files: those that are given, whatever their names, and all videos in and below folders.

    Raises:
        UserError: something is not there, or a folder has no videos.
    """
    if not places:
        raise UserError("no clips are given; give video files, or folders with some")
    found: list[str] = []
    for place in places:
        found += _at(place)
    return list(dict.fromkeys(found))  # a file may be given, and its folder too


def _at(place: str) -> list[str]:
    uri = place if "://" in place else str(Path(place).expanduser())
    storage, path = filesystem(uri)
    info = retried(lambda: storage.get_file_info(path), what=uri)
    if info.type == pafs.FileType.NotFound:
        raise UserError(f"'{place}' does not exist; give video files, or folders with some")
    if info.type == pafs.FileType.File:
        return [uri]
    listed = retried(lambda: storage.get_file_info(pafs.FileSelector(path, recursive=True)), what=uri)
    inside = sorted(one.path for one in listed if one.type == pafs.FileType.File and _is_video(one.path, path))
    if not inside:
        raise UserError(
            f"the folder '{place}' has no videos (*{', *'.join(VIDEO_SUFFIXES[:5])} ...); give another one, or name "
            "the files themselves"
        )
    below = [one.removeprefix(path).strip("/") for one in inside]
    base, mark, options = uri.partition("?") if "://" in uri else (uri, "", "")
    return [f"{base.rstrip('/')}/{name}{mark}{options}" for name in below]


def _is_video(path: str, folder: str) -> bool:
    """By its name; hidden files, and those in hidden folders, are none."""
    name = path.removeprefix(folder).strip("/")
    return name.lower().endswith(VIDEO_SUFFIXES) and not any(part.startswith(".") for part in name.split("/"))
