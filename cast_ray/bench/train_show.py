"""How the report of `cast-ray bench train` looks in a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

__all__ = ["show_train"]

PARTS = {
    "deepspeed": "DeepSpeed instead of plain torch",
    "inputs": "inputs made of uint8 frames",
    "loop": "the loop: agreement of workers, sums, watchdog",
    "logging": "a row of the history every {steps} updates",
    "checkpoints": "a checkpoint every {checkpoint_every} updates, written in the background",
    "data": "waiting for data",
    "ray": "the rest: Ray and the decoders beside the workers",
}
WIDTH = 110


def show_train(report: Mapping[str, Any], console: Console) -> None:
    """Print what was trained, what each part costs, and the two speeds with their ratio."""
    # A pipe counts as 80 columns wide, and would break every line.
    console = Console(file=console.file, width=max(console.width, WIDTH))
    bare, stack, ratio = report["bare"], report["stack"], report["ratio"]
    console.print(
        f"{report['model']}, {report['workers']} workers x {report['threads']} threads on {report['device']}, "
        f"{report['batch']} clips x {report['accumulation']}, {report['precision']}, ZeRO {report['zero_stage']}; "
        f"medians of {report['repeats']} turns",
        style="bold",
        highlight=False,
    )
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("one update")
    for title in ("ms", "share", "processor ms", "share"):
        table.add_column(title, justify="right")
    clips = report["batch"] * report["accumulation"] * report["workers"]
    table.add_row("(a) bare torch loop", *_total(bare, clips, report["workers"]), end_section=True)
    for part, words in PARTS.items():
        lost = report["lost"][part]
        table.add_row(
            words.format(**report),
            f"{lost['seconds'] * 1e3:+.1f}",
            f"{lost['share']:+.1%}",
            *("", "")
            if part == "data"
            else (f"{lost['processor_seconds'] * 1e3:+.1f}", f"{lost['processor_share']:+.1%}"),
        )
    table.add_section()
    table.add_row("(b) the whole stack", *_total(stack, clips, report["workers"]))
    console.print(table)
    console.print(
        f"(b) / (a): {ratio['clips_per_second']:.1%} by the clock ({stack['clips_per_second']:.4g} of "
        f"{bare['clips_per_second']:.4g} clips/s), {ratio['processor_seconds_per_clip']:.1%} by processor time",
        style="bold",
        highlight=False,
    )
    console.print(
        f"start-up, not counted: {bare['start_seconds']:.1f} s and {stack['start_seconds']:.1f} s; mean loss of the "
        f"first {report['steps']} updates: {bare['first_loss']:.6f} and {stack['first_loss']:.6f}",
        highlight=False,
    )


def _total(speeds: Mapping[str, float], clips: int, workers: int) -> tuple[str, str, str, str]:
    seconds = clips / speeds["clips_per_second"]
    return f"{seconds * 1e3:.1f}", "", f"{speeds['processor_seconds_per_clip'] * clips / workers * 1e3:.1f}", ""
