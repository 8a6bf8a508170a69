"""The command `cast-ray inspect`: what a prepared dataset holds, on the terminal, as JSON and as a picture."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import tyro
from rich.console import Console

from cast_ray.command_line import parse
from cast_ray.errors import UserError

if TYPE_CHECKING:
    from cast_ray.data.shards import ShardedDataset

__all__ = ["main"]

DESCRIPTION = """Show what a prepared dataset holds: classes, lengths, formats, and what is left out with its reason.

Examples: cast-ray inspect /data/ssv2; cast-ray inspect s3://bucket/ek100 --contact-sheet sheet.png --split validation;
cast-ray inspect /data/ssv2 --json."""

MOST = {"clips": 200, "frames": 16}
"""A picture of that many takes some hundred megabytes."""


@dataclass(frozen=True, kw_only=True)
class Inspect:
    """Flags of `cast-ray inspect`."""

    shards: Annotated[str, tyro.conf.Positional]
    """Folder or URI of a prepared dataset, or of the storage of runs where there is one dataset."""
    all_classes: bool = False
    """Show every class, not only the most frequent and the rarest."""
    quarantine: bool = False
    """Show every clip that is left out or without its sound, not only the first."""
    json: bool = False
    """Print everything as JSON."""
    contact_sheet: str | None = None
    """PNG file or URI to write frames of sample clips to; the next flags are for it."""
    clips: int = 12
    """Sample clips, spread over splits and classes."""
    frames: int = 6
    """Frames of each, evenly from the first to the last."""
    label: str | None = None
    """Only clips of the class with this name."""
    split: str | None = None
    """Only clips of this split."""
    seed: int = 0
    """Another seed shows other clips."""

    def __post_init__(self) -> None:
        for name, most in MOST.items():
            if not 1 <= getattr(self, name) <= most:
                raise UserError(f"--{name} is {getattr(self, name)}; give 1 to {most}")
        if self.contact_sheet is not None and not self.contact_sheet.lower().endswith(".png"):
            raise UserError(f"--contact-sheet is '{self.contact_sheet}'; give a file that ends in .png")
        if self.contact_sheet is None and (self.label is not None or self.split is not None):
            raise UserError("--label and --split choose the clips of a contact sheet; add --contact-sheet FILE.png")


def main(arguments: list[str]) -> int:
    """Run `cast-ray inspect ARGUMENTS`; returns the exit status.

    Raises:
        UserError: an unknown flag, no complete dataset, a damaged one, or a sheet that cannot be written.
    """
    settings = parse(
        Inspect,
        Inspect(shards=tyro.MISSING),
        description=DESCRIPTION,
        arguments=arguments,
        program="cast-ray inspect",
    )
    from cast_ray.data.inspection.opening import open_at
    from cast_ray.data.inspection.summary import summarise
    from cast_ray.data.inspection.tables import show
    from cast_ray.data.inspection.warnings import warnings_about

    dataset = open_at(settings.shards)
    if settings.contact_sheet is not None:
        _write_sheet(dataset, settings, settings.contact_sheet)
    summary = summarise(dataset)
    if settings.json:
        print(json.dumps({**summary.to_dict(), "warnings": warnings_about(summary)}, indent=2))  # noqa: T201
    else:
        show(summary, Console(), all_classes=settings.all_classes, all_clips=settings.quarantine)
    return 0


def _write_sheet(dataset: ShardedDataset, settings: Inspect, target: str) -> None:
    from cast_ray.data.inspection.samples import sample_clips
    from cast_ray.data.inspection.sheet import contact_sheet
    from cast_ray.data.storage import check_writable, filesystem, written_whole

    rows = sample_clips(dataset, settings.clips, split=settings.split, label=settings.label, seed=settings.seed)
    storage, path = filesystem(target)
    check_writable(target.rpartition("/")[0] or ".")
    notes = Console(stderr=True)
    with notes.status(f"decoding {rows.num_rows} clips ..."):
        picture, encoded = contact_sheet(dataset, rows, settings.frames), io.BytesIO()
        picture.save(encoded, format="PNG")
    with written_whole(storage, path) as sink:
        sink.write(encoded.getvalue())
    notes.print(f"contact sheet: {target}", soft_wrap=True, highlight=False, markup=False)
