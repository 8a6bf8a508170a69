"""Which clips ActivityNet-1.3 has, read from its official JSON file.

Layout (activity_net.v1-3.min.json of http://activity-net.org/download.html): `database` maps a YouTube id to an object
with `subset` ("training", "validation" or "testing", the last without labels) and `annotations`, a list of objects
with `label` and `segment`, its first and last second. A clip is a segment; the video is the whole v_<id>.mp4 or
<id>.mp4.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from cast_ray.data.catalog.entries import Entry, OnSkip, Source, build_manifest, names_in_training, refuse
from cast_ray.data.catalog.files import find_annotation, read_json
from cast_ray.data.catalog.videos import VideoFolder
from cast_ray.data.manifest import TRAIN, VALIDATION, Manifest
from cast_ray.errors import UserError

__all__ = ["read_activitynet"]

SPLITS = {"training": TRAIN, "validation": VALIDATION, "testing": None}


def read_activitynet(videos: Path | str, annotations: Path | str, *, on_skip: OnSkip = refuse) -> Manifest:
    """Read a dataset in the layout of ActivityNet-1.3; a clip's id is the video's with the number of its segment.

    Classes are the labels of the training segments in alphabetical order.

    Args:
        videos: folder below which the whole videos lie.
        annotations: folder with activity_net.v1-3.min.json.
        on_skip: what to do with clips that cannot be used; see `cast_ray.data.catalog.entries.OnSkip`. The official
            file has a few empty segments, so that it can only be read in full if they are left out.

    Raises:
        UserError: a folder, file or video is missing, the file is not what it should be, a validation label has no
            training clip, or a split is empty.
    """
    folder = VideoFolder.scan(videos)
    path = find_annotation(annotations, "activity_net.v1-3.min.json")
    content = read_json(path)
    database = content.get("database") if isinstance(content, dict) else None
    if not isinstance(database, dict):
        raise UserError(f"'{path}' must be a JSON object with an object 'database'; download the file again")
    entries: dict[str, list[Entry]] = {TRAIN: [], VALIDATION: []}
    for video, value in database.items():
        place = f"video '{video}'"
        if not isinstance(value, dict) or value.get("subset") not in SPLITS or "annotations" not in value:
            raise UserError(
                f"'{path}', {place}: must be an object with 'subset' (one of {list(SPLITS)}) and 'annotations', it is "
                f"{str(value)[:80]!r}"
            )
        split = SPLITS[value["subset"]]
        if split is not None:
            entries[split] += _read_segments(video, value["annotations"], path)
    sources = [Source(path=path, split=split, entries=found) for split, found in entries.items()]
    return build_manifest(sources, folder, names_in_training(sources), on_skip)


def _read_segments(video: str, segments: Any, path: Path) -> list[Entry]:
    if not isinstance(segments, list):
        raise UserError(f"'{path}', video '{video}': 'annotations' must be a list, it is {str(segments)[:80]!r}")
    entries = []
    for number, value in enumerate(segments, start=1):
        place = f"segment {number} of video '{video}'"
        if not isinstance(value, dict) or not isinstance(value.get("label"), str) or "segment" not in value:
            raise UserError(
                f"'{path}', {place}: must be an object with 'label' and 'segment', it is {str(value)[:80]!r}"
            )
        entries.append(
            Entry(
                place=place,
                clip_id=f"{video}_{number}",
                names=(f"v_{video}", video),
                labels=(value["label"],),
                segment=_segment(value["segment"], f"'{path}', {place}"),
                cut=False,
            )
        )
    return entries


def _segment(value: Any, where: str) -> tuple[float, float]:
    if isinstance(value, list) and len(value) == 2:
        try:
            start_s, stop_s = float(value[0]), float(value[1])
        except (TypeError, ValueError):
            start_s = stop_s = math.nan
        if 0 <= start_s < math.inf and 0 <= stop_s < math.inf:
            return start_s, stop_s
    raise UserError(f"{where}: 'segment' is {value!r}; it must be the first and the last second, both from 0 on")
