"""How matplotlib's figures become files: without a display, and the same bytes for the same figure."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Literal

import matplotlib
from matplotlib.figure import Figure

from cast_ray.data.storage import filesystem, written_whole

__all__ = ["GREY", "encoded", "last_name", "plain", "write_files"]

GREY = "#5b6574"
DOTS_PER_INCH = 120


def encoded(figure: Figure, kind: Literal["png", "svg"]) -> bytes:
    """The figure as a file."""
    # Without a salt, matplotlib names the parts of an SVG at random.
    with matplotlib.rc_context({"svg.hashsalt": "cast_ray", "svg.fonttype": "none"}):
        sink = io.BytesIO()
        metadata = {"Date": None} if kind == "svg" else {"Software": None}
        figure.savefig(sink, format=kind, dpi=DOTS_PER_INCH, metadata=metadata)
    return sink.getvalue()


def plain(text: str) -> str:
    """Text from outside as matplotlib shows it as it is: a dollar would begin a formula."""
    return text.replace("$", r"\$")


def write_files(place: str, files: Mapping[str, bytes]) -> None:
    """Write files by name into a folder, each whole, the last one last.

    Args:
        place: path or URI.
        files: contents by name.

    Raises:
        UserError: there is no such storage, or no space left.
    """
    storage, folder = filesystem(place)
    storage.create_dir(folder, recursive=True)
    for name, content in files.items():
        with written_whole(storage, f"{folder}/{name}") as sink:
            sink.write(content)


def last_name(place: str) -> str:
    """What a path or URI ends in, for the name of a folder."""
    return filesystem(place)[1].rstrip("/").rpartition("/")[2]
