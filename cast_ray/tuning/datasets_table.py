"""How a comparison over datasets is shown: a figure per dataset and task, and the balance; as Markdown and picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cast_ray.report.charts import BarChart, Bars
from cast_ray.tuning.grid import Mean, figures_of, harmonic, mean_of, means, table_line
from cast_ray.tuning.results import TrialResult
from cast_ray.tuning.trial import DATASET

__all__ = ["datasets_balance", "datasets_chart", "datasets_markdown", "datasets_means"]

Found = Mapping[str, Mapping[str, Mean]]
"""Dataset -> figure -> mean over its seeds."""


def datasets_means(results: Sequence[TrialResult]) -> dict[str, dict[str, Mean]]:
    """Dataset -> figure -> mean over its seeds; datasets of which all runs failed are left out."""
    return means(results, lambda result: str(result.values[DATASET]))


def datasets_balance(results: Sequence[TrialResult], datasets: Sequence[str]) -> Mean | None:
    """The harmonic mean over all datasets, one for each seed that has them all; None without such a seed."""
    of_seeds: dict[int, dict[str, dict[str, float]]] = {}
    for result in results:
        figures = figures_of(result)
        if figures:
            of_seeds.setdefault(int(result.values["seed"]), {})[str(result.values[DATASET])] = figures
    complete = [found for found in of_seeds.values() if set(found) == set(datasets)]
    return mean_of([harmonic(found) for found in complete]) if complete else None


def datasets_markdown(datasets: Sequence[str], found: Found, balance: Mean | None) -> str:
    """The table in percent; a dataset without a complete run is in it as failed."""
    rows = [["dataset", "figure", "top-1, %", "runs"], ["---"] * 4]
    for name in datasets:
        rows += [[name, field, str(mean), str(mean.runs)] for field, mean in found.get(name, {}).items()]
        if name not in found:
            rows.append([name, "", "failed", "0"])
    if balance is not None:
        rows.append(["all", "harmonic mean", str(balance), str(balance.runs)])
    return "".join(table_line(row) + "\n" for row in rows)


def datasets_chart(found: Found, balance: Mean | None) -> BarChart:
    """All figures as bars with their intervals, the balance below them."""
    rows = {f"{name}: {field}": mean for name, named in found.items() for field, mean in named.items()}
    if balance is not None:
        rows["harmonic mean"] = balance
    bars = Bars(
        name="top-1",
        colour=0,
        values=tuple(100 * mean.value for mean in rows.values()),
        ends=tuple(mean.ends for mean in rows.values()),
    )
    return BarChart(title="One configuration on several datasets", value="top-1, %", labels=tuple(rows), series=(bars,))
