"""Which clips are meant by the paths, folders and URIs that somebody gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow.fs as pafs

from cast_ray.data.storage import filesystem, joined, retried
from cast_ray.errors import UserError
from cast_ray.evaluation.listing import list_clips

__all__ = ["find_clips"]


def find_clips(places: Sequence[str], *, say: Callable[[str], object] = lambda _: None) -> list[str]:
    """Paths and URIs of files: those that are given, whatever their names, and all videos in and below folders.

    Args:
        places: files and folders, as paths or URIs.
        say: is told what is left out of folders.

    Raises:
        UserError: something is not there, or a folder has no videos.
    """
    if not places:
        raise UserError("no clips are given; give video files, or folders with some")
    found: list[str] = []
    for place in places:
        found += _at(place, say)
    return list(dict.fromkeys(found))  # a file may be given, and its folder too


def _at(place: str, say: Callable[[str], object]) -> list[str]:
    uri = place if "://" in place else str(Path(place).expanduser())
    storage, path = filesystem(uri)
    info = retried(lambda: storage.get_file_info(path), what=uri)
    if info.type == pafs.FileType.NotFound:
        raise UserError(f"'{place}' does not exist; give video files, or folders with some")
    if info.type == pafs.FileType.File:
        return [uri]
    listing = list_clips(uri)
    for reason, count in listing.left_out.items():
        say(f"left out of {place}: {count:,} {reason}")
    if "://" in uri:
        uris: list[str] = listing.clips["uri"].to_pylist()
        return uris
    return [joined(uri, name) for name in listing.clips["clip_id"].to_pylist()]  # relative where the folder is
