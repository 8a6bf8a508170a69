"""What a preparation tells at its end: clips, sizes, what cannot be used, and how to train from it."""

from __future__ import annotations

import shlex
from datetime import timedelta

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cast_ray.data.catalog.layouts import Layout
from cast_ray.data.inspection.summary import Summary, summarise
from cast_ray.data.prepare import Preparation

__all__ = ["show_outcome"]

MANY = 0.1
"""Share of quarantined clips from which on something is wrong with the videos as a whole."""
EXAMPLES = 5
JOBS = {"kinetics": "train_k400", "kinetics_sounds": "train_kinetics_sound"} | {
    layout: f"train_{layout}" for layout in ("ssv2", "ek100", "ucf101", "vggsound", "epic_sounds")
}
"""Layouts that have a training job of their own."""


def show_outcome(done: Preparation, layout: Layout, console: Console) -> None:
    """Print the summary; the layout decides which training job is named at the end."""
    summary = summarise(done.dataset)
    console.print(_splits(summary))
    _show_quarantined(summary, console)
    clips = done.dataset.index.num_rows
    usable = max(clips - len(summary.quarantined.clips), 1)
    stored = sum(split.bytes for split in summary.splits.values())
    lines = [
        f"size: {_size(done.source_bytes)} of video files, {_size(stored)} stored; "
        f"per clip {_size(done.source_bytes / clips)} and {_size(stored / usable)}"
    ]
    if done.clips_made:
        time = timedelta(seconds=round(done.seconds))
        lines.append(f"time: {time} for {done.clips_made:,} clips, {done.clips_made / done.seconds:.1f} clips/s")
    else:
        lines.append("time: nothing was left to do")
    place = shlex.quote(done.dataset.uri)
    lines += [
        f"data: {done.dataset.uri} (fingerprint {done.dataset.fingerprint})",
        f"look at it:  cast-ray inspect {place}",
        f"train on it: python jobs/{JOBS.get(layout, 'train_custom')}.py --shards {place}",
    ]
    for line in lines:
        console.print(line, soft_wrap=True, highlight=False, markup=False)


def _splits(summary: Summary) -> Table:
    table = Table()
    for name in ("split", "clips", "quarantined", "without sound", "hours"):
        table.add_column(name, justify="left" if name == "split" else "right")
    for name, split in summary.splits.items():
        table.add_row(
            Text(name), f"{split.clips:,}", f"{split.quarantined:,}", f"{split.without_sound:,}", f"{split.hours:,.2f}"
        )
    return table


def _show_quarantined(summary: Summary, console: Console) -> None:
    left_out, clips = summary.quarantined, sum(split.clips for split in summary.splits.values())
    if not left_out.clips:
        return
    share = len(left_out.clips) / clips
    text = f"{len(left_out.clips):,} of {clips:,} clips ({share:.1%}) cannot be used:"
    console.print(Text(text, style="yellow"))
    for reason, count in left_out.reasons.items():
        console.print(Text(f"  {count:,}  {reason}"), soft_wrap=True)
    for clip in left_out.clips[:EXAMPLES]:
        console.print(Text(f"  clip {clip['clip_id']} ({clip['uri']}): {clip['reason']}"), soft_wrap=True)
    if len(left_out.clips) > EXAMPLES:
        console.print(f"  all of them: cast-ray inspect {shlex.quote(summary.uri)} --quarantine", soft_wrap=True)
    if share > MANY:
        warning = (
            f"WARNING: that is more than {MANY:.0%} of the clips. Results on the others are not comparable with "
            "published ones; look at the reasons before you train"
        )
        console.print(Text(warning, style="bold red"), soft_wrap=True)


def _size(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:,.0f} {unit}" if unit == "B" else f"{size:,.1f} {unit}"
        size /= 1000
    return f"{size:,.2f} TB"
