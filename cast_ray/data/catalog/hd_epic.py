"""Which clips HD-EPIC has, read from its narrations.

Layout (https://github.com/hd-epic/hd-epic-annotations, folder narrations-and-action-segments): HD_EPIC_Narrations.pkl
is a table with one row per narrated segment, described in the README, HD_EPIC_verb_classes.csv and
HD_EPIC_noun_classes.csv have the class names. Opening a pickle can run code, so the table is read from
HD_EPIC_Narrations.csv, to which its owner converts it once. The videos are the whole recordings, <video_id>.mp4.
"""

from __future__ import annotations

import re
from pathlib import Path

from cast_ray.data.catalog.entries import Entry, OnSkip, Source, build_manifest, refuse
from cast_ray.data.catalog.files import find_annotation, read_class_names, read_csv, seconds
from cast_ray.data.catalog.videos import VideoFolder
from cast_ray.data.manifest import VALIDATION, Manifest
from cast_ray.errors import UserError
from cast_ray.labels import NOUN, VERB, LabelMap

__all__ = ["read_hd_epic"]

TABLE, PICKLE = "HD_EPIC_Narrations.csv", "HD_EPIC_Narrations.pkl"
ACTION = re.compile(r"\((\d+), ?(\d+)\)", re.ASCII)
ACTIONS = re.compile(rf"\[(?:{ACTION.pattern}(?:, )?)*\]", re.ASCII)
COLUMNS = ("unique_narration_id", "video_id", "start_timestamp", "end_timestamp", "main_action_classes")


def read_hd_epic(
    videos: Path | str,
    annotations: Path | str,
    *,
    label_map: LabelMap | None = None,
    on_skip: OnSkip = refuse,
) -> Manifest:
    """Read a dataset in the layout of HD-EPIC, all for validation; the label is the first main action of a narration.

    Args:
        videos: folder with the whole recordings, such as Videos/P01/P01-20240202-110250.mp4.
        annotations: folder with HD_EPIC_Narrations.csv and the two class files.
        label_map: verbs and nouns of the model to be tested, such as those of EPIC-KITCHENS-100, found by their
            names; None: those of HD-EPIC.
        on_skip: what to do with clips that cannot be used, among them those whose verb or noun `label_map` does not
            have; see `cast_ray.data.catalog.entries.OnSkip`.

    Raises:
        UserError: a folder, file or video is missing, a file is not what it should be, a class is unknown, or there
            is no clip.
    """
    folder = VideoFolder.scan(videos)
    own = LabelMap(
        {
            field: read_class_names(find_annotation(annotations, f"HD_EPIC_{field}_classes.csv"))
            for field in (VERB, NOUN)
        }
    )
    if label_map is None:
        label_map = own
    elif label_map.fields != (VERB, NOUN):
        raise UserError(f"the label map has the fields {list(label_map.fields)}; HD-EPIC needs ['{VERB}', '{NOUN}']")
    path = _find_table(annotations)
    entries = [
        _entry(row, f"line {line}", f"'{path}', line {line}", own, label_map) for line, row in read_csv(path, COLUMNS)
    ]
    return build_manifest([Source(path=path, split=VALIDATION, entries=entries)], folder, label_map, on_skip)


def _find_table(annotations: Path | str) -> Path:
    pickle = Path(annotations) / PICKLE
    if pickle.is_file() and not (Path(annotations) / TABLE).is_file():
        raise UserError(
            f"'{pickle}' is not opened, because a pickle can run code; if it is from the official repository, convert "
            f"it once: python -c \"import pandas; pandas.read_pickle('{PICKLE}').to_csv('{TABLE}', index=False)\""
        )
    return find_annotation(annotations, TABLE)


def _entry(row: dict[str, str], place: str, where: str, own: LabelMap, wanted: LabelMap) -> Entry:
    start_s, stop_s = (seconds(row[name], f"{where}: {name}") for name in ("start_timestamp", "end_timestamp"))
    actions = _actions(row["main_action_classes"], where)
    labels: tuple[str, ...] = ("", "")
    problem = None if actions else "no main action"
    if actions:
        own.check(actions[0], where=where)
        labels = tuple(own.names[field][index] for field, index in zip(own.fields, actions[0], strict=True))
        if any(label not in wanted.names[field] for field, label in zip(own.fields, labels, strict=True)):
            problem = "a verb or noun that the label map does not have"
    return Entry(
        place=place,
        clip_id=row["unique_narration_id"],
        names=(row["video_id"],),
        labels=labels,
        segment=(start_s, stop_s),
        cut=False,
        problem=problem,
    )


def _actions(text: str, where: str) -> list[tuple[int, int]]:
    """The (verb, noun) pairs in "[(3, 3), (34, 3)]", as pandas writes a list."""
    if ACTIONS.fullmatch(text) is None:
        raise UserError(
            f"{where}: main_action_classes is {text[:80]!r}; it must be a list of verb and noun, like '[(3, 3)]'"
        )
    return [(int(verb), int(noun)) for verb, noun in ACTION.findall(text)]
