"""How an ablation is shown: the paper's table with our figures beside the published ones, as Markdown and picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cast_ray.report.charts import BarChart, Bars
from cast_ray.tuning.ablations import TABLES
from cast_ray.tuning.grid import Mean, means, table_line
from cast_ray.tuning.results import TrialResult
from cast_ray.tuning.trial import VARIANT

__all__ = ["ablation_chart", "ablation_markdown", "ablation_means"]

PUBLISHED = ("verb", "noun", "action")


def ablation_means(table: str, results: Sequence[TrialResult]) -> dict[str, dict[str, Mean]]:
    """Label of a row -> figure -> mean over its seeds, in the table's order; rows that failed are left out."""
    found = means(results, lambda result: str(result.values[VARIANT]))
    return {row.label: found[row.label] for row in TABLES[table].rows if row.label in found}


def ablation_markdown(table: str, found: Mapping[str, Mapping[str, Mean]], dataset: str) -> str:
    """The table in percent, with the published figures where there are some."""
    rows = TABLES[table].rows
    figures = list(next(iter(found.values()), {}))
    published = any(row.published for row in rows)
    head = ["variant", *figures, "runs", *(f"published {name}" for name in PUBLISHED if published)]
    lines = [f"Table {table}: {TABLES[table].title}. Top-1 on {dataset}, in percent.", ""]
    if published:
        lines[0] += " The published figures are of EPIC-KITCHENS-100."
    lines += [table_line(head), table_line(["---"] * len(head))]
    for row in rows:
        ours = found.get(row.label)
        cells = [str(ours[name]) if ours and name in ours else "failed" for name in figures]
        runs = str(max((mean.runs for mean in ours.values()), default=0)) if ours else "0"
        theirs = [f"{value:.1f}" for value in row.published or ()] if published else []
        lines.append(table_line([row.label, *cells, runs, *theirs]))
    return "\n".join(lines) + "\n"


def ablation_chart(table: str, found: Mapping[str, Mapping[str, Mean]]) -> BarChart:
    """Our figures as bars with their intervals."""
    figures = list(next(iter(found.values()), {}))
    series = [
        Bars(
            name=name,
            colour=colour,
            values=tuple(100 * row[name].value for row in found.values()),
            ends=tuple(row[name].ends for row in found.values()),
        )
        for colour, name in enumerate(figures)
    ]
    title = f"Table {table}: {TABLES[table].title}"
    return BarChart(title=title, value="top-1, %", labels=tuple(found), series=tuple(series), limits=None)
