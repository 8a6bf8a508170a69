"""What of a run a report is made: read from the run's folder, or from a file of predictions alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

import pyarrow.fs as pafs

from cast_ray.configuration import CONFIG_FILE
from cast_ray.data.storage import filesystem, joined, read_bytes
from cast_ray.errors import UserError
from cast_ray.evaluation.prediction_files import FILE_NAME
from cast_ray.evaluation.predictions import read_predictions
from cast_ray.report.keep import kept_record
from cast_ray.report.record import Attention, AttentionPicture, RunRecord

__all__ = ["ATTENTION", "read_attention", "read_run"]

ATTENTION = "attention"
"""Folder in a run's with index.json, the pictures that it names, and entropy.json; `cast-ray analyze` writes it."""
MIMES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".mp4": "video/mp4"}


def read_run(place: str, name: str | None = None) -> RunRecord:
    """The run at a path or URI: its folder, or predictions alone, which then are all that is known.

    Args:
        place: folder of a run, or whatever `read_predictions` takes.
        name: to call it; None: as the run is called, or the file.

    Raises:
        UserError: there are no predictions, or something of the run is damaged.
    """
    predictions = read_predictions(place)
    known = None
    if _is_folder(place):
        config = _object(joined(place, CONFIG_FILE)) if _is_file(joined(place, CONFIG_FILE)) else {}
        known = kept_record(place, predictions, config)
        known = known or RunRecord(name=_called(place), predictions=predictions, config=config)
        known = replace(known, attention=read_attention(joined(place, ATTENTION)))
    known = known or RunRecord(name=_called(place), predictions=predictions)
    return known if name is None else replace(known, name=name)


def read_attention(folder: str) -> Attention:
    """What `cast-ray analyze` has found out about a run; nothing if it has not been asked.

    Args:
        folder: with index.json, a list of objects with clip_id, title, file and caption, and with entropy.json, an
            object {exchange: [entropy in each block, or null]}; both may be missing.

    Raises:
        UserError: one of them is damaged, or a picture is missing or of an unknown kind.
    """
    index, entropy = joined(folder, "index.json"), joined(folder, "entropy.json")
    try:
        listed = json.loads(read_bytes(index)) if _is_file(index) else []
        return Attention(
            pictures=tuple(
                AttentionPicture(
                    clip_id=str(entry["clip_id"]),
                    title=str(entry["title"]),
                    caption=str(entry["caption"]),
                    data=read_bytes(joined(folder, _plain_name(entry["file"]))),
                    mime=MIMES[PurePosixPath(entry["file"]).suffix.lower()],
                )
                for entry in listed
            ),
            entropy={
                str(exchange): [None if value is None else float(value) for value in blocks]
                for exchange, blocks in (_object(entropy) if _is_file(entropy) else {}).items()
            },
        )
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"'{folder}' is damaged ({error!r}): index.json must list objects with clip_id, title, file (.png, .jpg or "
            ".mp4) and caption, entropy.json have a list of numbers for each exchange; remove it or write it again"
        ) from error


def _plain_name(name: str) -> str:
    if "/" in name or "\\" in name or name.startswith("."):
        raise ValueError(f"the file name is '{name}'")
    return name


def _object(uri: str) -> Mapping[str, Any]:
    try:
        content = json.loads(read_bytes(uri))
    except ValueError as error:
        raise UserError(f"'{uri}' is no JSON ({error}); remove it or write it again") from error
    if not isinstance(content, dict):
        raise UserError(f"'{uri}' holds {str(content)[:40]!r} instead of a JSON object; remove it or write it again")
    return content


def _called(place: str) -> str:
    """What to call a run that does not say: its folder, or the file's name without its ending."""
    path = PurePosixPath(filesystem(place)[1])
    return path.parent.name if path.name == FILE_NAME else path.name.removesuffix(".parquet")


def _is_folder(place: str) -> bool:
    storage, path = filesystem(place)
    return storage.get_file_info(path).type == pafs.FileType.Directory


def _is_file(place: str) -> bool:
    storage, path = filesystem(place)
    return storage.get_file_info(path).type == pafs.FileType.File
