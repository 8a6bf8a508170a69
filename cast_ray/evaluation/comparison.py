"""How several models do on the same clips: one table."""

from __future__ import annotations

from collections.abc import Mapping

from rich.table import Table

from cast_ray.labels import LabelMap

__all__ = ["comparison"]


def comparison(summaries: Mapping[str, Mapping[str, float]], label_map: LabelMap) -> Table:
    """Top-1 accuracy of every model and label field, above that of guessing.

    Args:
        summaries: `Metrics.summary` of each model, by its name.
        label_map: of the clips.
    """
    table = Table(title="top-1 on held-out clips")
    table.add_column("model")
    for field in label_map.fields:
        table.add_column(field, justify="right")
    for model, summary in summaries.items():
        table.add_row(model, *(f"{summary[f'{field}_top1']:.1%}" for field in label_map.fields))
    table.add_row("chance", *(f"{1 / count:.1%}" for count in label_map.num_classes.values()), style="dim")
    return table
