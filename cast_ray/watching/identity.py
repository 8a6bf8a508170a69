"""Under which ids other programs know a run: a file in its folder, so that a resumed run is the same one there."""

from __future__ import annotations

import json

from pyarrow.fs import FileType

from cast_ray.data.storage import filesystem, joined, read_bytes, written_whole

__all__ = ["known_id", "remember_id"]

FILE = "tracking.json"


def known_id(folder: str, program: str) -> str | None:
    """The id of the run in `folder`, if an earlier part of it has one."""
    return _ids(folder).get(program)


def remember_id(folder: str, program: str, run_id: str) -> None:
    """Keep the id for later parts of the run."""
    storage, path = filesystem(joined(folder, FILE))
    storage.create_dir(path.rpartition("/")[0], recursive=True)
    with written_whole(storage, path) as sink:
        sink.write(json.dumps(_ids(folder) | {program: run_id}, indent=2).encode() + b"\n")


def _ids(folder: str) -> dict[str, str]:
    place = joined(folder, FILE)
    storage, path = filesystem(place)
    return json.loads(read_bytes(place)) if storage.get_file_info(path).type == FileType.File else {}
