"""What a run's folder keeps so that a report of it can be made later, from the folder alone.

`report_data.json` has the name, duration, log, unreadable clips, numbers of training clips and the place of the
dataset; `examples/` a few clips as small videos with a poster. The configuration and predictions are files of
their own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.fs as pafs

from cast_ray.data.storage import filesystem, joined, read_bytes
from cast_ray.errors import UserError
from cast_ray.evaluation.predictions import Predictions
from cast_ray.report.record import RunRecord, Video

__all__ = ["DATA_FILE", "EXAMPLES", "kept_record", "write_kept"]

DATA_FILE, EXAMPLES = "report_data.json", "examples"
ENDINGS = {"video/mp4": ".mp4", "video/webm": ".webm"}


def write_kept(run: RunRecord, folder: Path) -> None:
    """Write what `kept_record` reads; the predictions and the configuration are left to others.

    Args:
        run: what to keep.
        folder: of the run, on this machine.
    """
    (folder / EXAMPLES).mkdir(parents=True, exist_ok=True)
    examples = {}
    for number, (clip_id, video) in enumerate(run.videos.items()):
        files = {"video": f"{number:04d}{ENDINGS[video.mime]}"}
        (folder / EXAMPLES / files["video"]).write_bytes(video.data)
        if video.poster is not None:
            files["poster"] = f"{number:04d}.jpg"
            (folder / EXAMPLES / files["poster"]).write_bytes(video.poster)
        examples[clip_id] = files
    content = {
        "name": run.name,
        "seconds": run.seconds,
        "dataset": run.dataset,
        "quarantined": None if run.quarantined is None else [list(pair) for pair in run.quarantined],
        "training_clips": {field: counts.tolist() for field, counts in run.training_clips.items()},
        "examples": examples,
        "history": list(run.history),
    }
    (folder / DATA_FILE).write_text(json.dumps(content), encoding="utf-8")


def kept_record(place: str, predictions: Predictions, config: Mapping[str, Any]) -> RunRecord | None:
    """What the folder of a run keeps, with its predictions and configuration; None if it keeps nothing.

    Args:
        place: path or URI of the run's folder.
        predictions: of the run.
        config: of the run; empty if unknown.

    Raises:
        UserError: what is kept is damaged.
    """
    storage, path = filesystem(place)
    if storage.get_file_info(f"{path}/{DATA_FILE}").type != pafs.FileType.File:
        return None
    known = set(predictions.clip_ids)
    try:
        content = json.loads(read_bytes(joined(place, DATA_FILE)))
        quarantined = content["quarantined"]
        return RunRecord(
            name=str(content["name"]),
            predictions=predictions,
            config=config,
            history=[dict(row) for row in content["history"]],
            videos={
                clip_id: _video(place, files) for clip_id, files in content["examples"].items() if clip_id in known
            },
            quarantined=None if quarantined is None else [(str(name), str(reason)) for name, reason in quarantined],
            seconds=None if content["seconds"] is None else float(content["seconds"]),
            training_clips={
                field: _counts(content["training_clips"][field], size)
                for field, size in predictions.label_map.num_classes.items()
                if field in content["training_clips"]
            },
            dataset=None if content["dataset"] is None else str(content["dataset"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{DATA_FILE} of the run '{place}' is damaged ({error!r}); remove it, and give the run again: the report "
            "then shows what its predictions allow"
        ) from error


def _video(place: str, files: dict[str, str]) -> Video:
    mime = {ending: mime for mime, ending in ENDINGS.items()}[Path(files["video"]).suffix]
    poster = _example(place, files["poster"]) if "poster" in files else None
    return Video(data=_example(place, files["video"]), mime=mime, poster=poster)


def _example(place: str, name: str) -> bytes:
    if "/" in name or name.startswith("."):
        raise ValueError(f"an example is called '{name}'")
    return read_bytes(joined(place, EXAMPLES, name))


def _counts(counts: list[int], num_classes: int) -> np.ndarray:
    if len(counts) != num_classes:
        raise ValueError(f"training clips of {len(counts)} classes instead of {num_classes}")
    return np.array(counts, np.int64)
