"""How the figures of a dataset are shown in a terminal of 80 columns or more."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence

from rich import box, filesize
from rich.bar import Bar
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cast_ray.data.inspection.summary import ClassCount, LeftOut, Split, Spread, Summary, Tally
from cast_ray.data.inspection.warnings import warnings_about
from cast_ray.data.manifest import TRAIN
from cast_ray.data.media import MediaFormat

__all__ = ["show"]

ENDS = 10
"""Most frequent and rarest classes that are shown of many; up to `2 * ENDS + 4` classes all are."""
FEW_CLIPS = 10
FEW_VALUES = 6
BLOCKS = " \u2581\u2582\u2583\u2584\u2585\u2586\u2587\u2588"
"""From nothing to a full column."""


def show(summary: Summary, console: Console, *, all_classes: bool = False, all_clips: bool = False) -> None:
    """Print everything; `all_classes`, and `all_clips` of those with a reason, leave nothing out."""
    for name, value in _head(summary):
        console.print(Text.assemble((f"{name:<13}", "bold"), value), soft_wrap=True)
    console.print(_splits(summary.splits))
    for field, classes in summary.classes.items():
        _heading(_counted(field, classes), console)
        console.print(_classes(classes, list(summary.splits), console.width, every=all_classes))
    console.print(_spreads({"seconds": summary.duration_s, "frames": summary.num_frames, "frames/s": summary.fps}))
    console.print(_values(summary))
    console.print()
    _reasons("quarantined", summary.quarantined, console, every=all_clips)
    _reasons("used without their broken sound", summary.broken_sound, console, every=all_clips)
    for warning in warnings_about(summary):
        console.print(Text.assemble(("warning: ", "bold yellow"), warning), soft_wrap=True)


def _head(summary: Summary) -> Iterator[tuple[str, str]]:
    yield "dataset", summary.uri
    yield "fingerprint", summary.fingerprint
    yield "stored", _stored(summary.format)
    yield "labels", ", ".join(f"{field} ({count:,} classes)" for field, count in summary.num_classes.items())


def _stored(media: MediaFormat) -> str:
    video = {
        "original": "original video",
        "short-gop": f"H.264, key frame every {media.gop} frames, crf {media.crf}",
        "jpeg": f"JPEG frames of quality {media.quality}"
        + (f", {media.frame_rate:g} per second" if media.frame_rate is not None else ""),
    }[media.video]
    size = "" if media.video == "original" else f", short side at most {media.short_side}"
    sound = {"original": "original sound", "16khz": "sound as FLAC of 16 kHz", "none": "no sound"}[media.sound]
    return f"{video}{size}; {sound}"


def _splits(splits: Mapping[str, Split]) -> Table:
    columns = ("clips", "usable", "no sound", "h:mm:ss", "size", "per clip")
    table = _table("split", columns)
    for name, split in splits.items():
        _add_split(table, name, split)
    if len(splits) > 1:
        every = splits.values()
        usable = sum(split.clips - split.quarantined for split in every)
        size = sum(split.bytes for split in every)
        total = Split(
            clips=sum(split.clips for split in every),
            quarantined=sum(split.quarantined for split in every),
            without_sound=sum(split.without_sound for split in every),
            hours=sum(split.hours for split in every),
            bytes=size,
            bytes_per_clip=size / max(usable, 1),
        )
        _add_split(table, "all", total)
    return table


def _add_split(table: Table, name: str, split: Split) -> None:
    usable = split.clips - split.quarantined
    table.add_row(
        Text(name),
        f"{split.clips:,}",
        f"{usable:,}",
        f"{split.without_sound:,} ({_share(split.without_sound, usable)})",
        _clock(split.hours),
        filesize.decimal(split.bytes),
        filesize.decimal(round(split.bytes_per_clip)),
    )


def _counted(field: str, classes: Sequence[ClassCount]) -> str:
    """How many clips the classes of a field have, in a line."""
    split = _ranked_by(classes)
    counts = [each.clips[split] for each in classes if each.clips[split]]
    text = f"{field}: {len(counts):,} of {len(classes):,} classes in {split}"
    if not counts:
        return text
    low, high = min(counts), max(counts)
    if low == high:
        return f"{text}, {low:,} clips each"
    ratio = f"{high / low:.1f}" if high < 10 * low else f"{high / low:,.0f}"
    return f"{text}, {low:,} to {high:,} clips each (1:{ratio}), median {statistics.median(counts):,g}"


def _classes(classes: Sequence[ClassCount], splits: Sequence[str], width: int, *, every: bool) -> Table:
    first = _ranked_by(classes)
    ranked = sorted(classes, key=lambda each: (-each.clips[first], -sum(each.clips.values()), each.index))
    hidden = 0 if every or len(ranked) <= 2 * ENDS + 4 else len(ranked) - 2 * ENDS
    total = sum(each.clips[first] for each in classes)
    highest = ranked[0].clips[first]
    table = _table("class", ["index", *splits, "share"])
    table.add_column()
    for place, each in enumerate(ranked):
        if hidden and ENDS <= place < len(ranked) - ENDS:
            if place == ENDS:
                table.add_row(f"... {hidden:,} more ...")
            continue
        count = each.clips[first]
        table.add_row(
            Text(each.name),
            str(each.index),
            *(f"{each.clips[split]:,}" for split in splits),
            _share(count, total),
            Bar(max(highest, 1), 0, count, width=10 if width < 100 else 24, color="cyan"),
        )
    return table


def _ranked_by(classes: Sequence[ClassCount]) -> str:
    """The split whose counts order the classes."""
    splits = classes[0].clips
    return TRAIN if TRAIN in splits else next(iter(splits))


def _spreads(spreads: Mapping[str, Spread]) -> Table:
    table = _table("per clip", ("min", "5 %", "median", "mean", "95 %", "max"))
    table.add_column("min to max", no_wrap=True)
    for name, spread in spreads.items():
        figures = (
            spread.minimum,
            spread.percentile_5,
            spread.median,
            spread.mean,
            spread.percentile_95,
            spread.maximum,
        )
        table.add_row(name, *map(_figure, figures), _drawn(spread.histogram))
    return table


def _drawn(histogram: Sequence[int]) -> str:
    """A column of eight steps for each bin; no column is a bin without clips."""
    highest = max(histogram, default=0)
    return "".join(BLOCKS[-(-count * (len(BLOCKS) - 1) // highest)] for count in histogram)


def _values(summary: Summary) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True, style="bold")
    table.add_column()
    tallies = {
        "frame rate": summary.frame_rates,
        "size": summary.sizes,
        "video codec": summary.video_codecs,
        "sound codec": summary.sound_codecs,
        "made from": summary.sources,
    }
    for name, tally in tallies.items():
        table.add_row(name, Text(_most_frequent(tally)))
    return table


def _most_frequent(tally: Tally) -> str:
    total = sum(tally.values())
    shown = [f"{value} ({count:,}, {_share(count, total)})" for value, count in list(tally.items())[:FEW_VALUES]]
    more = f" and {len(tally) - FEW_VALUES:,} others" if len(tally) > FEW_VALUES else ""
    return ", ".join(shown) + more


def _reasons(title: str, left_out: LeftOut, console: Console, *, every: bool) -> None:
    """Why clips are left out, then which; a clip is a line of its own, whatever the width, for other programs."""
    if not left_out.clips:
        return
    _heading(f"{title}: {len(left_out.clips):,}", console)
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(justify="right")
    table.add_column()
    for reason, count in left_out.reasons.items():
        table.add_row(f"{count:,}", Text(reason))
    console.print(table)
    shown = left_out.clips if every else left_out.clips[:FEW_CLIPS]
    for clip in shown:
        line = f"  {clip['split']}  {clip['clip_id']}  {clip['uri']}: {clip['reason']}"
        console.print(Text(line), soft_wrap=True)
    if len(shown) < len(left_out.clips):
        console.print(f"  ... {len(left_out.clips) - len(shown):,} more (--quarantine shows them)", highlight=False)
    console.print()


def _table(first: str, others: Sequence[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(first, overflow="fold")
    for name in others:
        table.add_column(Text(name), justify="right", no_wrap=True)
    return table


def _heading(text: str, console: Console) -> None:
    console.print(Text(text, style="bold"))


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "-"


def _clock(hours: float) -> str:
    minutes, seconds = divmod(round(hours * 3600), 60)
    return f"{minutes // 60:,}:{minutes % 60:02}:{seconds:02}"


def _figure(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 1000 or value == round(value) else f"{value:.2f}"
