"""How clips are loaded straight from video files, without shards."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from cast_ray.data.ingest import stored_clips
from cast_ray.data.loader import ROW_COLUMNS, ClipLoader, Row
from cast_ray.data.manifest import Clip
from cast_ray.data.media import Media, StoredClip
from cast_ray.data.storage import filesystem, is_local
from cast_ray.errors import UserError

__all__ = ["ABSENT", "FILE_COLUMNS", "FileLoader", "is_absent", "row_of"]

FILE_COLUMNS = ("clip_id", "labels", "uri", "start_s", "stop_s")
"""What a row must say of a clip."""
ABSENT = "file does not exist or may not be read"


@dataclass(frozen=True, kw_only=True)
class FileLoader(ClipLoader):
    """As `ClipLoader`, for rows with `FILE_COLUMNS`; each clip goes through what a preparation does to it.

    So a clip is the same as in a shard, and a file that cannot be used has the same reason. `root` is where the files
    lie: from remote storage several are read ahead.

    A row with a `reason` is not looked into. A file that is not there, or may not be read, is unreadable, and so is one
    whose `uri` is none. A storage that does not answer is a `UserError`: else an outage would make all unreadable.
    """

    def __call__(self, rows: pa.Table) -> dict[str, Any]:
        """As `ClipLoader`."""
        for name in set(ROW_COLUMNS) - set(rows.column_names):
            rows = rows.append_column(name, pa.nulls(rows.num_rows))  # not known before the file is read
        return super().__call__(rows)

    def fetched(self, copies: list[Row]) -> tuple[list[Row], Media | None]:
        """As `ClipLoader`, with what the rows lack."""
        row = copies[0]
        if row["reason"]:
            return copies, None
        clip = Clip(
            clip_id=row["clip_id"],
            uri=row["uri"],
            labels=tuple(row["labels"]),
            split="",
            start_s=row["start_s"],
            stop_s=row["stop_s"],
        )
        try:
            if is_local(row["uri"]) and os.path.isdir(filesystem(row["uri"])[1]):
                return [row | {"reason": "a folder, not a file"}], None
            (stored,) = stored_clips([clip], dataclasses.replace(self.stored, time_limit_s=self.time_limit_s))
        except UserError as error:
            if is_absent(error):
                return [row | {"reason": ABSENT}], None
            if (wrong := _no_uri(row["uri"])) is not None:
                return [row | {"reason": wrong}], None
            raise
        return [row | row_of(stored)], None if stored.facts is None else stored.media


def row_of(stored: StoredClip) -> Row:
    """What rows say of a clip's media, as loading needs it; of a clip that cannot be used only the reason."""
    if stored.facts is None:
        return {"reason": stored.reason}
    known = {name: getattr(stored.facts, name) for name in ("num_frames", "fps", "sound_codec")}
    return known | {"start_s": stored.start_s, "stop_s": stored.stop_s, "reason": stored.reason}


def is_absent(error: UserError) -> bool:
    """Whether the file is at fault (`ABSENT`), and not its storage."""
    return isinstance(error.__cause__, FileNotFoundError | PermissionError)


def _no_uri(uri: str) -> str | None:
    """What is wrong with a URI that no storage could open, else None."""
    if "://" not in uri:
        return None
    try:
        filesystem(uri)
    except UserError as error:
        # An OSError is the storage's answer, or that there was none.
        return None if isinstance(error.__cause__, OSError) else str(error)
    return None
