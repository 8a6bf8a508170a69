"""How answers look on a terminal, and what JSON holds of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cast_ray.inference.answer import Prediction
from cast_ray.inference.timeline import Timeline

__all__ = ["Result", "UnreadableClip", "as_dict", "show"]


@dataclass(frozen=True, kw_only=True)
class UnreadableClip:
    """A clip without an answer."""

    clip: str
    reason: str


Result = Prediction | Timeline | UnreadableClip


def as_dict(result: Result, *, top: int, threshold: float) -> dict[str, Any]:
    """What JSON holds of a result."""
    if isinstance(result, UnreadableClip):
        return {"clip": result.clip, "error": result.reason}
    if isinstance(result, Timeline):
        return result.to_dict(threshold=threshold, top=top)
    return result.to_dict(top)


def show(result: Result, *, top: int, threshold: float) -> None:
    """Print a result: a clip's `top` classes of every field, or a video's segments above `threshold`."""
    console = Console()
    if isinstance(result, UnreadableClip):
        console.print(
            Text.assemble((result.clip, "bold"), ": ", ("cannot be read", "red"), f": {result.reason}"), soft_wrap=True
        )
        return
    table = _segments(result, threshold) if isinstance(result, Timeline) else _classes(result, top)
    # A pipe counts as 80 columns wide, and would lose the ends of names.
    width = console.measure(table, options=console.options.update(max_width=10_000)).maximum
    console = Console(width=max(console.width, width))
    console.print(Text(_title(result), style="bold"), soft_wrap=True)
    note = result.note if isinstance(result, Prediction) else _unreadable_windows(result)
    if note:
        console.print(Text(note, style="yellow"), soft_wrap=True)
    console.print(table)


def _title(result: Prediction | Timeline) -> str:
    if isinstance(result, Timeline):
        return (
            f"{result.video}: {result.seconds:.1f} s, {len(result.windows)} windows of {result.window_s:.2f} s, one "
            f"every {result.stride_s:.2f} s"
        )
    length = "length unknown" if result.seconds is None else f"{result.seconds:.1f} s"
    return f"{result.clip}: {length}, {result.views} view{'' if result.views == 1 else 's'}"


def _unreadable_windows(timeline: Timeline) -> str:
    reasons = [window.reason for window in timeline.windows if window.probabilities is None]
    if not reasons:
        return ""
    return f"{len(reasons)} of {len(timeline.windows)} windows could not be read, the first because: {reasons[0]}"


def _classes(prediction: Prediction, top: int) -> Table:
    table = Table()
    for name in ("field", "class"):
        table.add_column(name, no_wrap=True)
    table.add_column("probability", justify="right")
    for name, scores in prediction.top(top).items():
        for place, score in enumerate(scores):
            shown = Text(score.name, style="bold" if place == 0 else "")
            table.add_row(name if place == 0 else "", shown, f"{score.probability:.1%}")
        table.add_section()
    return table


def _segments(timeline: Timeline, threshold: float) -> Table:
    table = Table()
    for name in ("from", "to"):
        table.add_column(name, justify="right")
    for name in ("field", "class"):
        table.add_column(name, no_wrap=True)
    table.add_column("probability", justify="right")
    for one in timeline.segments(threshold):
        table.add_row(
            f"{one.start_s:.1f} s", f"{one.stop_s:.1f} s", one.field, Text(one.name), f"{one.probability:.1%}"
        )
    return table
