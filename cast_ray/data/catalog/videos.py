"""Which video files a folder has, and which of them an annotation means."""

from __future__ import annotations

import functools
import os
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from cast_ray.data.catalog.files import NUM_EXAMPLES
from cast_ray.data.manifest import escaped
from cast_ray.errors import UserError

__all__ = ["DEPTH", "NOT_UTF8", "OTHER_SUFFIX", "VIDEO_SUFFIXES", "VideoFolder", "below", "examples"]

VIDEO_SUFFIXES = (
    *(".mp4", ".webm", ".mkv", ".mov", ".avi", ".m4v", ".mpg", ".mpeg", ".wmv", ".ts", ".mts", ".m2ts", ".m2v"),
    *(".flv", ".f4v", ".3gp", ".3g2", ".ogv", ".asf", ".vob", ".mxf", ".divx"),
)
"""In order of preference where a folder holds the same clip twice."""
DEPTH = 2
"""Levels of subfolders in which videos are looked for: <split>/<class>, <participant>/videos."""

DEEPER = "folders that lie deeper than videos are looked for"
DEAD_LINK = "entries that are no files, such as links that lead nowhere"
NOT_UTF8 = "files whose names are not UTF-8 text"
OTHER_SUFFIX = "files whose names do not end as those of videos"
SAME_STEM = "videos that differ from another one only by what follows the last dot"


@dataclass(frozen=True, kw_only=True)
class VideoFolder:
    """The video files in one folder and its subfolders; hidden files and folders (.name) are not looked at."""

    path: str
    """Absolute."""
    depth: int
    """Levels of subfolders that were looked into."""
    files: dict[str, str] = field(default_factory=dict)
    """Path below the folder without suffix -> path with suffix."""
    places: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """File name without suffix -> its keys in `files`, one for each subfolder that has it."""
    subfolders: list[str] = field(default_factory=list)
    """Paths of those that were looked into."""
    ignored: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """Why something in the folder is not in `files` -> the paths of what is not, fit to be printed."""

    @classmethod
    def at(cls, path: Path | str) -> VideoFolder:
        """The folder without a list of its files, for readers that look for them by themselves.

        Raises:
            UserError: there is no such folder, or its path is not UTF-8 text.
        """
        if escaped(str(path)) != str(path):
            raise UserError(
                f"the path of the video folder '{escaped(str(path))}' is not UTF-8 text; rename the folder, or give "
                "another path that leads to it"
            )
        if not os.path.isdir(path):
            raise UserError(f"the video folder '{path}' does not exist; give the folder that holds the clips' files")
        return cls(path=os.path.abspath(path), depth=0)

    @classmethod
    def scan(cls, path: Path | str, depth: int = DEPTH) -> VideoFolder:
        """List each folder once: asking for each of 220,000 files by itself takes minutes on a network file system.

        Links are followed, also out of the folder.

        Args:
            path: the folder.
            depth: levels of subfolders to look into.

        Raises:
            UserError: as `at`, or a folder cannot be listed.
        """
        folder = cls(path=cls.at(path).path, depth=depth)
        try:
            folder._list("", depth)
        except OSError as error:
            raise UserError(f"cannot list '{path}': {error}; give a folder that may be read") from error
        for key in folder.files:
            folder.places[key.rsplit("/", 1)[-1]].append(key)
        return folder

    def _list(self, below: str, depth: int) -> None:
        inner = []
        with os.scandir(os.path.join(self.path, below)) as entries:
            # Not in the order of the file system, on which nothing may depend.
            for entry in sorted(entries, key=lambda entry: entry.name):
                path = below + entry.name
                stem, suffix = os.path.splitext(path)
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    if depth:
                        inner.append(f"{path}/")
                    else:
                        self.ignored[DEEPER].append(escaped(path))
                elif suffix.lower() not in VIDEO_SUFFIXES:
                    self.ignored[OTHER_SUFFIX].append(escaped(path))
                elif not entry.is_file():
                    self.ignored[DEAD_LINK].append(escaped(path))
                elif escaped(path) != path:
                    self.ignored[NOT_UTF8].append(escaped(path))
                else:
                    pair = sorted((self.files.get(stem, path), path), key=_preference)
                    self.files[stem] = pair[0]
                    self.ignored[SAME_STEM] += [pair[1]] if pair[1] != pair[0] else []
        for subfolder in inner:
            self.subfolders.append(escaped(subfolder.rstrip("/")))
            self._list(subfolder, depth - 1)

    def find(self, *names: str) -> str | None:
        """Absolute path of the first of `names` that there is, None if there is none.

        Args:
            names: without suffix. A bare file name is found in any subfolder. A path means the file of that path below
                the folder, else the one whose path ends in it. An absolute path means the file there if it lies in
                the folder, else the one whose whole path below the folder it ends in.

        Raises:
            UserError: several files are meant.
        """
        for name in names:
            keys = self._meant(name)
            if len(keys) > 1:
                raise UserError(
                    f"'{self.path}' has more than one video '{name}': {examples([self.files[key] for key in keys])}; "
                    "keep the right one"
                )
            if keys:
                return os.path.join(self.path, self.files[keys[0]])
        return None

    def inside(self, path: PurePosixPath) -> str | None:
        """What an absolute path is below the folder, whose links may be resolved in it; None: it lies elsewhere."""
        for root in self._roots:
            if path.is_relative_to(root):
                return str(path.relative_to(root))
        return None

    @functools.cached_property
    def _roots(self) -> tuple[str, ...]:
        return self.path, os.path.realpath(self.path)

    def _meant(self, name: str) -> list[str]:
        path = PurePosixPath(name)
        same = self.places.get(path.name, [])
        if path.is_absolute():
            inside = self.inside(path)
            if inside is not None:
                return [inside] if inside in self.files else []
            return [key for key in same if name.endswith(f"/{key}")]
        if len(path.parts) > 1:
            return [name] if name in self.files else [key for key in same if key.endswith(f"/{name}")]
        return same


def below(name: str, where: str, *, absolute: bool = False) -> PurePosixPath:
    """The path of a video as an annotation file gives it.

    Args:
        name: the path.
        where: names its place.
        absolute: whether it may be absolute.

    Raises:
        UserError: it leads out of the folder that it is relative to.
    """
    path = PurePosixPath(name)
    if not path.parts or not path.name or (path.is_absolute() and not absolute) or ".." in path.parts:
        raise UserError(f"{where}: the video is called {name!r}; give a path below the video folder, without '..'")
    return path


def examples(values: Iterable[str]) -> str:
    """The first few of the values, for messages."""
    values = list(values)
    return ", ".join(values[:NUM_EXAMPLES]) + (" ..." if len(values) > NUM_EXAMPLES else "")


def _preference(file: str) -> tuple[int, str]:
    return VIDEO_SUFFIXES.index(os.path.splitext(file)[1].lower()), file
