"""The command `cast-ray analyze attention`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from rich import box
from rich.console import Console
from rich.table import Table

from cast_ray.checks import require, require_positive
from cast_ray.command_line import parse
from cast_ray.data.catalog.source import say
from cast_ray.evaluation.device import Device
from cast_ray.weights.moved import MovedWeights

if TYPE_CHECKING:
    from cast_ray.data.shards import ShardedDataset
    from cast_ray.explain.clip_attention import ClipAttention
    from cast_ray.explain.model import OpenedNetwork

__all__ = ["main"]

DESCRIPTION = """Show what the experts of a model look at in each other: pictures, a film, and the entropy by block.

Examples: cast-ray analyze attention runs/ssv2 video.mp4;
cast-ray analyze attention runs/ssv2 78687 --shards /data/ssv2 --output looks;
for the examples of a run, as `cast-ray report` shows them: cast-ray analyze attention runs/ssv2 --report."""

LAST_BLOCK = (
    "experts that are read out by a class token are asked for nothing after their last block's exchanges, so that what "
    "they look at there counts for nothing, and is left out"
)


@dataclass(frozen=True, kw_only=True)
class AttentionFlags:
    """Flags of `cast-ray analyze attention`."""

    checkpoint: Annotated[str, tyro.conf.Positional]
    """Path or URI of the folder of a checkpoint, or of a run, whose best one is taken."""
    clip: Annotated[str | None, tyro.conf.Positional] = None
    """A video file; or with --shards the id of a clip."""
    shards: str | None = None
    """Prepared dataset that the clip is of; None with --report: the one that the run was trained on."""
    report: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Write attention/ into the run's folder for its report: an overview of each example, and the mean entropy."""
    examples: int = 6
    """With --report: clips to show, half of them wrong and half right as far as there are."""
    output: str | None = None
    """Folder or URI to write to; None: attention-CLIP in the working folder."""
    device: Device = "auto"
    """Where to compute; auto takes a GPU if there is one."""
    weights: MovedWeights = field(default_factory=MovedWeights)

    def __post_init__(self) -> None:
        require_positive("examples", self.examples)
        if self.report:
            require(self.clip is None, f"--report chooses its clips, but '{self.clip}' is given; leave it away")
            require(self.output is None, f"--report writes into the run; leave --output '{self.output}' away")


def main(arguments: list[str]) -> int:
    """Run `cast-ray analyze attention ARGUMENTS`; returns the exit status.

    Raises:
        UserError: an unknown flag, no checkpoint, a model without attention between experts, no such clip, or one that
            cannot be read.
    """
    flags = parse(
        AttentionFlags,
        AttentionFlags(checkpoint=tyro.MISSING),
        description=DESCRIPTION,
        arguments=arguments,
        program="cast-ray analyze attention",
    )
    require(flags.report or flags.clip is not None, "no clip is given; give a video file, a clip id, or --report")

    from cast_ray.explain.attention import check_attends
    from cast_ray.explain.model import model_here, open_network

    console = Console()
    model = open_network(model_here(flags.checkpoint, device=flags.device, moved=flags.weights))
    check_attends(model.network)
    say(console, "model", model.trained.place)
    if flags.report:
        _report(flags, model, console)
    else:
        _one_clip(flags, model, console)
    return 0


def _one_clip(flags: AttentionFlags, model: OpenedNetwork, console: Console) -> None:
    from cast_ray.data.storage import check_writable
    from cast_ray.explain.attention_files import clip_files
    from cast_ray.explain.clip_attention import mean_entropy
    from cast_ray.explain.pictures import last_name, write_files

    output = flags.output or f"attention-{last_name(str(flags.clip))}"
    clip = _analysed(flags, model)
    check_writable(output)
    with console.status("drawing ..."):
        files = clip_files(clip)
    say(console, "clip", f"{clip.clip_id}: {clip.verdict}")
    if clip.silent:
        say(console, "note", "the clip has no sound: exchanges with sound change nothing, and are left out")
    if model.network.spec.merge != "sequence":
        say(console, "note", LAST_BLOCK)
    console.print(_entropy_table(mean_entropy([clip])))
    write_files(output, files)
    say(console, "written", f"{output}: {', '.join(files)}")


def _analysed(flags: AttentionFlags, model: OpenedNetwork) -> ClipAttention:
    from cast_ray.explain.clip_attention import clip_attention
    from cast_ray.explain.clips import named_clips, opened_file

    clip = str(flags.clip)
    if flags.shards is not None:
        dataset = _dataset(flags.shards, model)
        return clip_attention(model, dataset, named_clips(dataset, [clip]))
    require(
        "://" in clip or Path(clip).is_file(),
        f"'{clip}' is no file; give a video file, or the id of a clip with the dataset that it is of (--shards)",
    )
    with opened_file(clip, model.trained.label_map) as (dataset, row):
        return clip_attention(model, dataset, row, truth_known=False)


def _report(flags: AttentionFlags, model: OpenedNetwork, console: Console) -> None:
    from cast_ray.data.storage import joined
    from cast_ray.evaluation.predictions import FILE_NAME, read_predictions
    from cast_ray.explain.attention_files import report_files
    from cast_ray.explain.clip_attention import clip_attention
    from cast_ray.explain.clips import named_clips
    from cast_ray.explain.pictures import write_files
    from cast_ray.report.examples import choose_examples
    from cast_ray.report.source import ATTENTION

    predictions = read_predictions(joined(flags.checkpoint, FILE_NAME))
    clip_ids = choose_examples([predictions], count=flags.examples)
    config = model.trained.config
    dataset = _dataset(flags.shards or joined(config.storage, "shards", model.trained.dataset), model)
    found = []
    with console.status("") as status:
        for number, clip_id in enumerate(clip_ids, start=1):
            status.update(f"clip {number} of {len(clip_ids)}: {clip_id}")
            found.append(clip_attention(model, dataset, named_clips(dataset, [clip_id])))
        files = report_files(found)
    target = joined(flags.checkpoint, ATTENTION)
    write_files(target, files)
    say(console, "written", f"{target}: {len(found)} clips, index.json, entropy.json")


def _dataset(place: str, model: OpenedNetwork) -> ShardedDataset:
    from cast_ray.data.inspection.opening import open_at
    from cast_ray.explain.clips import check_labels

    dataset = open_at(place)
    check_labels(dataset.label_map, model.trained.label_map, where=place)
    return dataset


def _entropy_table(entropy: dict[str, list[float | None]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title="entropy, share of the largest (1: looks everywhere alike)")
    table.add_column("exchange")
    for block in range(1, 1 + max(map(len, entropy.values()))):
        table.add_column(f"block {block}", justify="right")
    for name, values in entropy.items():
        table.add_row(name, *("" if value is None else f"{value:.3f}" for value in values))
    return table
