"""How the report of `cast-ray bench inference` looks in a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

__all__ = ["show_inference"]

WIDTH = 110


def show_inference(report: Mapping[str, Any], console: Console) -> None:
    """Print what was measured, one line per variant, and why others have no figures."""
    # A pipe counts as 80 columns wide, and would break every line.
    console = Console(file=console.file, width=max(console.width, WIDTH))
    costs = report["costs"]
    sizes = ", ".join(
        f"{name} {cost['parameters'] / 1e6:.2f} M parameters and {cost['multiply_adds'] / 1e9:.3g} G multiply-adds"
        for name, cost in costs.items()
    )
    console.print(
        f"{report['model']}: {sizes}; batch {report['batch']}, {report['threads']} threads, medians of "
        f"{report['rounds']} turns x {report['steps']} batches",
        highlight=False,
    )
    measured = [result for result in report["results"] if "reason" not in result]
    fields = list(measured[0].get("accuracy", {})) if measured else []
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("variant")
    for title in ("ms", "p90", "processor ms", "least", "peak MB", *(f"top-1 {field}" for field in fields)):
        table.add_column(title, justify="right", no_wrap=True)
    for result in measured:
        table.add_row(result["variant"], *_times(result), *_quality(result, fields))
    console.print(table)
    if report["clips"] is not None:
        console.print(
            f"top-1 of one central view of {report['clips']} validation clips, its change in points, and the share of "
            "clips with the same answer"
        )
    for result in report["results"]:
        if "reason" in result:
            console.print(f"{result['variant']}: {result['reason']}", highlight=False, markup=False)


def _times(result: Mapping[str, Any]) -> list[str]:
    names = ("median_seconds", "p90_seconds", "median_cpu_seconds", "least_cpu_seconds")
    return [*(f"{1e3 * result[name]:.4g}" for name in names), f"{result['peak_memory'] / 1e6:.0f}"]


def _quality(result: Mapping[str, Any], fields: list[str]) -> list[str]:
    figures = [result["accuracy"][field] for field in fields]
    return [
        f"{figure['top1']:.1%} {100 * figure['change']:+.1f}, same {figure['same_answer']:.1%}" for figure in figures
    ]
