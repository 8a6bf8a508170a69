"""The command `cast-ray report`: runs beside each other on one page, and as picture files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from rich.console import Console

from cast_ray.command_line import parse
from cast_ray.errors import UserError

if TYPE_CHECKING:
    from cast_ray.data.shards import ShardedDataset
    from cast_ray.report.record import RunRecord

__all__ = ["main"]

DESCRIPTION = """Write a report of one or more runs: one HTML file that works offline.

Runs are compared with each other, later ones with earlier ones: give an expert alone first, then CAST, then CA2ST.
Examples: cast-ray report runs/first; cast-ray report runs/spatial runs/temporal runs/cast --output comparison.html
--names CLIP VideoMAE CAST --groups EPIC_100_noun_classes.csv --pictures figures; a file of predictions alone:
cast-ray report other.parquet."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """Flags of `cast-ray report`."""

    runs: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Folders of runs, Parquet files of predictions or folders of them, as paths or URIs."""
    output: str = "report.html"
    """File or URI to write; an older report there is replaced."""
    pictures: str | None = None
    """Folder of this machine for every plot as PNG and SVG."""
    names: tuple[str, ...] = ()
    """What to call the runs; as they call themselves if left out."""
    groups: tuple[str, ...] = ()
    """Super-categories of classes: JSON files {class: super-category}, or the official EPIC_100_noun_classes.csv and
    EPIC_100_verb_classes.csv. Names like those of Something-Something-V2 are grouped by their verb without a file."""
    data: str | None = None
    """Prepared dataset that the clips to show are read from; None: where the runs say that theirs is. If it is not
    there, the clips that the runs kept are shown."""
    clips: int = 24
    """Clips to show."""
    recipe: str | None = None
    """Recipe to compare the configurations with; None: the closest to each."""
    resamples: int = 1000
    """Bootstrap resamples of the clips, for the confidence intervals."""
    level: float = 0.95
    """Confidence level of the intervals."""
    seed: int = 0
    """The same seed gives the same intervals."""

    def __post_init__(self) -> None:
        if self.names and len(self.names) != len(self.runs):
            raise UserError(f"--names has {len(self.names)} names for {len(self.runs)} runs; give one for each")
        if self.clips < 0:
            raise UserError(f"--clips is {self.clips}; give 0 or more")
        if self.pictures is not None and "://" in self.pictures:
            raise UserError(f"--pictures is '{self.pictures}'; give a folder of this machine")


def main(arguments: list[str]) -> int:
    """Run `cast-ray report` with the words behind it; returns the exit status.

    Raises:
        UserError: an unknown flag, runs that cannot be read or compared, or a place that cannot be written.
    """
    settings = parse(
        Report,
        Report(runs=tyro.MISSING),
        description=DESCRIPTION,
        arguments=arguments,
        program="cast-ray report",
    )
    if not settings.runs:
        raise UserError("no run is given; give the folder of a run, or a Parquet file of predictions")
    for place in settings.runs:
        if settings.runs.count(place) > 1:
            raise UserError(f"'{place}' is given twice; give every run once")

    from cast_ray.evaluation.comparison import Resampling
    from cast_ray.report.contents import make_contents
    from cast_ray.report.groups import groups_of
    from cast_ray.report.page import write_report
    from cast_ray.report.settings import check_recipe
    from cast_ray.report.source import read_run

    check_recipe(settings.recipe)
    names: Sequence[str | None] = settings.names or [None] * len(settings.runs)
    records = [read_run(place, name) for place, name in zip(settings.runs, names, strict=True)]
    contents = make_contents(
        _distinct(records, settings.runs),
        groups=groups_of(records[0].predictions.label_map, settings.groups),
        resampling=Resampling(resamples=settings.resamples, seed=settings.seed, level=settings.level),
    )
    console = Console(stderr=True)
    contents = replace(contents, runs=_with_clips(contents.runs, settings, console))
    write_report(contents, settings.output, recipe=settings.recipe)
    _say(console, f"report: {settings.output}")
    if settings.pictures is not None:
        from cast_ray.report.pictures import write_pictures

        written = write_pictures(contents.charts, Path(settings.pictures))
        _say(console, f"pictures: {len(written)} files in {settings.pictures}")
    return 0


def _distinct(records: list[RunRecord], places: Sequence[str]) -> list[RunRecord]:
    """Runs that are called the same get the names of their places."""
    names = [record.name for record in records]
    return [
        replace(record, name=place) if names.count(record.name) > 1 else record
        for record, place in zip(records, places, strict=True)
    ]


def _with_clips(runs: Sequence[RunRecord], settings: Report, console: Console) -> tuple[RunRecord, ...]:
    """The runs with the clips to show: out of the dataset if it is there, else of what they kept."""
    from cast_ray.report.examples import choose_examples
    from cast_ray.report.playable import videos_of

    predictions = [run.predictions for run in runs]
    dataset = _dataset(runs, settings, console)
    if dataset is not None:
        known = set(dataset.index.filter(dataset.index["num_frames"].is_valid())["clip_id"].to_pylist())
        chosen = choose_examples(predictions, count=settings.clips, among=known)
        videos = videos_of(dataset, chosen)
    else:
        kept = {clip_id: video for run in reversed(runs) for clip_id, video in run.videos.items()}
        chosen = choose_examples(predictions, count=settings.clips, among=kept)
        videos = {clip_id: kept[clip_id] for clip_id in chosen}
    first, *others = (replace(run, videos={}) for run in runs)
    return (replace(first, videos=videos), *others)


def _dataset(runs: Sequence[RunRecord], settings: Report, console: Console) -> ShardedDataset | None:
    """Where clips are read from; None if that is not there, which is said."""
    from cast_ray.data.inspection.opening import open_at
    from cast_ray.data.shards import open_dataset

    if settings.clips == 0:
        return None
    if settings.data is not None:
        return open_at(settings.data)
    place = next((run.dataset for run in runs if run.dataset is not None), None)
    if place is None:
        return None
    try:
        dataset = open_dataset(place)
    except UserError as error:
        _say(console, f"note: no clips from {place}: {error}")
        return None
    if dataset is None:
        _say(console, f"note: the dataset is not at {place} any more; --data names another place")
    return dataset


def _say(console: Console, text: str) -> None:
    console.print(text, soft_wrap=True, highlight=False, markup=False)
