"""Which reader a layout's name means, for programs that are told the layout on the command line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from cast_ray.data.catalog.activitynet import read_activitynet
from cast_ray.data.catalog.cast_csv import read_cast_csv
from cast_ray.data.catalog.counts import PUBLISHED, check_counts
from cast_ray.data.catalog.ek100 import read_ek100
from cast_ray.data.catalog.entries import OnSkip, refuse
from cast_ray.data.catalog.epic_sounds import read_epic_sounds, read_hd_epic_sounds
from cast_ray.data.catalog.folders import read_folders
from cast_ray.data.catalog.hd_epic import read_hd_epic
from cast_ray.data.catalog.kinetics import read_kinetics, read_kinetics_sounds
from cast_ray.data.catalog.ssv2 import read_ssv2
from cast_ray.data.catalog.table import read_table
from cast_ray.data.catalog.ucf101 import read_ucf101
from cast_ray.data.catalog.vggsound import read_vggsound
from cast_ray.data.manifest import Manifest
from cast_ray.errors import UserError

__all__ = ["Layout", "count_remark", "read_layout"]

Layout = Literal[
    "ssv2",
    "kinetics",
    "kinetics_sounds",
    "ek100",
    "ucf101",
    "vggsound",
    "epic_sounds",
    "activitynet",
    "hd_epic",
    "hd_epic_sounds",
    "cast_csv",
    "folders",
    "table",
]

_READERS: dict[str, Callable[..., Manifest]] = {
    "ssv2": read_ssv2,
    "kinetics": read_kinetics,
    "kinetics_sounds": read_kinetics_sounds,
    "ek100": read_ek100,
    "ucf101": read_ucf101,
    "vggsound": read_vggsound,
    "epic_sounds": read_epic_sounds,
    "activitynet": read_activitynet,
    "hd_epic": read_hd_epic,
    "hd_epic_sounds": read_hd_epic_sounds,
    "cast_csv": read_cast_csv,
    "folders": read_folders,
    "table": read_table,
}


def read_layout(
    layout: Layout,
    videos: str,
    annotations: str | None,
    *,
    split: Literal[1, 2, 3] | None = None,
    on_skip: OnSkip = refuse,
) -> Manifest:
    """The clips of a dataset.

    Args:
        layout: of folders and annotation files; docs/datasets.md describes each.
        videos: folder with the videos.
        annotations: folder with the annotation files; None for `folders` alone.
        split: which official division of UCF-101; None: the first one. Other datasets have none.
        on_skip: what to do with clips that cannot be used; see `cast_ray.data.catalog.entries.OnSkip`.

    Raises:
        UserError: an argument does not go with the layout, or as the layout's reader.
    """
    if (annotations is None) != (layout == "folders"):
        problem = "its classes are the folders; leave it away" if layout == "folders" else "give their folder"
        raise UserError(f"annotations are {annotations or 'not given'}, but the layout is '{layout}': {problem}")
    if split is not None and layout != "ucf101":
        raise UserError(f"split is {split}, but the layout is '{layout}': only ucf101 has numbered splits")
    options: dict[str, Any] = {} if split is None else {"split": split}
    places = (videos,) if annotations is None else (videos, annotations)
    return _READERS[layout](*places, on_skip=on_skip, **options)


def count_remark(layout: Layout, manifest: Manifest, *, split: int | None = None) -> str | None:
    """A sentence to print if the dataset has not the number of clips that was published, else None."""
    names = {"kinetics": "kinetics400", "ucf101": f"ucf101-{split or 1}"}
    published = PUBLISHED.get(names.get(layout, layout))
    return None if published is None else check_counts(manifest, published)
