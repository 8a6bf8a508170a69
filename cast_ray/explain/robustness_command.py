"""The command `cast-ray analyze robustness`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import tyro
from rich.console import Console

from cast_ray.checks import require_positive
from cast_ray.command_line import parse
from cast_ray.data.catalog.layouts import Layout, read_layout
from cast_ray.data.catalog.source import SourceFlags, say
from cast_ray.data.manifest import VALIDATION, Manifest
from cast_ray.evaluation.comparison import Resampling
from cast_ray.evaluation.device import Device
from cast_ray.explain.corruptions import CORRUPTIONS, Name
from cast_ray.weights.moved import MovedWeights

if TYPE_CHECKING:
    from cast_ray.data.shards import ShardedDataset
    from cast_ray.evaluation.trained import TrainedModel
    from cast_ray.explain.robustness import Robustness

__all__ = ["main"]

DESCRIPTION = """Measure accuracy on damaged clips: does a model use time, space, sound?

Frames are shuffled, played backwards, lost (frozen or black) and blurred; the sound gets noise or is muted; each at
several levels. Runs in this process, without a cluster. Examples:
cast-ray analyze robustness runs/ssv2 --shards /data/ssv2;
cast-ray analyze robustness runs/first --layout table --data clips/videos --annotations clips/annotations --clips 500;
cast-ray analyze robustness runs/ssv2 --shards /data/ssv2 --damage shuffle reverse --output reversal."""


@dataclass(frozen=True, kw_only=True)
class RobustnessFlags(SourceFlags):
    """Flags of `cast-ray analyze robustness`."""

    required: ClassVar[tuple[str, ...]] = ("data",)
    reading: ClassVar[tuple[str, ...]] = ("leave_out", "official_split")

    checkpoint: Annotated[str, tyro.conf.Positional]
    """Path or URI of the folder of a checkpoint, or of a run, whose best one is taken."""
    layout: Layout = "ssv2"
    """Layout of the folders and annotation files that --data and --annotations name."""
    official_split: Literal[1, 2, 3] | None = None
    """UCF-101: which of the official splits; None is the first."""
    split: str = VALIDATION
    """Which clips of the dataset."""
    clips: int = 200
    """Clips in the sample, every class with its share; as many as there are if fewer."""
    damage: tuple[Name, ...] = tuple(CORRUPTIONS)
    """Kinds of damage to look at."""
    output: str | None = None
    """Folder or URI for robustness.png, .svg, .csv and .json; None: robustness-RUN in the working folder."""
    batch: int = 16
    """Clips that are decoded and computed at once."""
    device: Device = "auto"
    """Where to compute; auto takes a GPU if there is one."""
    weights: MovedWeights = field(default_factory=MovedWeights)
    resamples: int = 1000
    """Bootstrap resamples of the clips."""
    level: float = 0.95
    """Confidence level of the intervals."""
    seed: int = 0
    """Of the sample, the damage and the intervals: the same seed gives the same figures."""

    def __post_init__(self) -> None:
        require_positive("clips", self.clips)
        require_positive("batch", self.batch)

    @property
    def resampling(self) -> Resampling:
        return Resampling(resamples=self.resamples, seed=self.seed, level=self.level)


def main(arguments: list[str]) -> int:
    """Run `cast-ray analyze robustness ARGUMENTS`; returns the exit status.

    Raises:
        UserError: an unknown flag, no checkpoint, data of other classes, no readable clip, or no place to write.
    """
    flags = parse(
        RobustnessFlags,
        RobustnessFlags(checkpoint=tyro.MISSING),
        description=DESCRIPTION,
        arguments=arguments,
        program="cast-ray analyze robustness",
    )
    flags.check_source()
    resampling, console = flags.resampling, Console()

    from cast_ray.data.storage import check_writable
    from cast_ray.explain.clips import check_labels
    from cast_ray.explain.curves import files
    from cast_ray.explain.model import model_here
    from cast_ray.explain.pictures import last_name, write_files

    source = _source(flags, console)
    output = flags.output or f"robustness-{last_name(flags.checkpoint)}"
    model = model_here(flags.checkpoint, device=flags.device, moved=flags.weights)
    say(console, "model", model.place)
    check_labels(source.label_map, model.label_map, where=flags.shards or str(flags.data))
    check_writable(output)
    found = _measured(flags, model, source, resampling, console)
    _show(found, console, resampling)
    write_files(output, files(found))
    say(console, "written", f"{output}/robustness.png, .svg, .csv, .json")
    return 0


def _source(flags: RobustnessFlags, console: Console) -> ShardedDataset | Manifest:
    from cast_ray.data.inspection.opening import open_at

    if flags.shards is not None:
        return open_at(flags.shards)
    return read_layout(
        flags.layout,
        str(flags.data),
        flags.annotations,
        split=flags.official_split,
        on_skip=flags.on_skip(console),
    )


def _measured(
    flags: RobustnessFlags,
    model: TrainedModel,
    source: ShardedDataset | Manifest,
    resampling: Resampling,
    console: Console,
) -> Robustness:
    from cast_ray.data.progress import ClipProgress
    from cast_ray.explain.clips import opened_sample
    from cast_ray.explain.model import centre_loader
    from cast_ray.explain.robustness import applicable, assess, predict_damaged

    corruptions, notes = applicable(model, flags.damage)
    for note in notes:
        say(console, "note", note)
    with (
        opened_sample(source, flags.split, flags.clips, seed=flags.seed) as (dataset, rows),
        ClipProgress(console, rows.num_rows) as progress,
    ):
        predictions, unreadable = predict_damaged(
            model,
            centre_loader(model, dataset),
            rows,
            corruptions,
            seed=flags.seed,
            clips_at_once=flags.batch,
            progress=progress.update,
        )
    for clip_id, reason in unreadable:
        say(console, "unreadable", f"clip {clip_id}: {reason}")
    notes += [f"{len(unreadable)} clips could not be read"] if unreadable else []
    return assess(model, predictions, corruptions, resampling=resampling, notes=notes)


def _show(found: Robustness, console: Console, resampling: Resampling) -> None:
    from cast_ray.explain.curves import curves_table, mistakes_table

    tables = [table for table in (curves_table(found), mistakes_table(found)) if table is not None]
    # A pipe counts as 80 columns wide, and would lose the ends of cells.
    widest = max(console.measure(table, options=console.options.update(max_width=10_000)).maximum for table in tables)
    wide = Console(width=max(console.width, widest))
    for table in tables:
        wide.print(table)
    console.print(
        f"top-1 in % on {found.num_clips} clips (centre view), with the {100 * resampling.level:g}% interval of "
        f"{resampling.resamples} bootstrap resamples; changes are paired clip by clip, * where their interval is on "
        "one side of 0",
        highlight=False,
        soft_wrap=True,
    )
