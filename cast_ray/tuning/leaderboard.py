"""How a search is looked at: one HTML page with the ranked trials, their curves, and what mattered."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from jinja2.utils import htmlsafe_json_dumps
from plotly.offline import get_plotlyjs

import cast_ray.report
from cast_ray.config import RunConfig
from cast_ray.configuration import configuration_text
from cast_ray.report.charts import BarChart, Bars, Line, LineChart
from cast_ray.report.interactive import TEMPLATES, figure, plain_text
from cast_ray.tuning.importance import importance
from cast_ray.tuning.lineage import schedule_rows, takeover_rows
from cast_ray.tuning.results import EPOCH, SCORE, TrialResult, ranked

__all__ = ["leaderboard_page"]

MOST_CURVES = 60
"""Trials whose curves are drawn, the best ones."""
REPORT = Path(cast_ray.report.__file__).parent
COLOUR_SCALE = [[0.0, "#94b6f5"], [0.5, "#3f7cf0"], [1.0, "#d0722a"]]


def leaderboard_page(results: Sequence[TrialResult], fields: tuple[str, ...], best: RunConfig) -> str:
    """The page as HTML, self-contained (about 5 MB of it is plotly.js).

    Args:
        results: of all trials; at least one has a score.
        fields: dotted names of the settings that were varied.
        best: the configuration of the best trial.
    """
    trials = ranked(results)
    scored = [trial for trial in trials if trial.best is not None]
    figures = {"curves": figure(_curves(scored)), "parallel": _parallel(scored, fields)}
    shares = importance(scored, fields)
    if shares:
        figures["importance"] = figure(_importance(shares))
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("leaderboard.html.j2").render(
        css=(REPORT / "page.css").read_text(),
        trials=[_row(trial, fields) for trial in trials],
        fields=fields,
        num_failed=sum(trial.error is not None for trial in trials),
        flags=_flags(trials[0].values),
        schedule=[(epochs, _flags(stage.values)) for epochs, stage in schedule_rows(trials[0])],
        takeovers=[(stage, [_short(stage.values.get(name)) for name in fields]) for stage in takeover_rows(trials)],
        configuration=configuration_text(best),
        figures=list(figures),
        data=htmlsafe_json_dumps({"figures": figures, "templates": TEMPLATES}, dumps=json.dumps),
        plotly_js=get_plotlyjs(),
    )


def _row(trial: TrialResult, fields: tuple[str, ...]) -> dict[str, Any]:
    return {
        "name": trial.name,
        "score": trial.best,
        "epochs": trial.epochs,
        "values": [_short(trial.values.get(name)) for name in fields],
        "error": trial.error,
    }


def _flags(values: Mapping[str, Any]) -> str:
    """The settings as a command line takes them."""
    return " ".join(
        f"--{name.replace('_', '-')} {' '.join(map(str, value)) if isinstance(value, list | tuple) else value}"
        for name, value in values.items()
        if "." in name
    )


def _curves(trials: Sequence[TrialResult]) -> LineChart:
    lines = [
        Line(
            name=f"{place}. {trial.name}",
            points=[(report[EPOCH], report[SCORE]) for report in trial.validations],
            colour=place - 1,
            style="solid" if place <= 5 else "faint",
            listed=place <= 5,
        )
        for place, trial in enumerate(trials[:MOST_CURVES], 1)
    ]
    return LineChart(title="Score after each epoch", x="epoch", y="score", lines=tuple(lines), fraction=True)


def _importance(shares: Mapping[str, float]) -> BarChart:
    ordered = sorted(shares.items(), key=lambda item: -item[1])
    return BarChart(
        title="Importance of each setting",
        value="share of the score's variance, %",
        labels=tuple(name for name, _ in ordered),
        series=(Bars(name="importance", values=tuple(100 * share for _, share in ordered), colour=0),),
    )


def _parallel(trials: Sequence[TrialResult], fields: tuple[str, ...]) -> dict[str, Any]:
    """Parallel coordinates: one line per trial through its settings to its score."""
    scores = [100 * float(trial.best or 0) for trial in trials]
    axes = [_axis(name, [trial.values.get(name) for trial in trials]) for name in fields]
    axes.append({"label": "score, %", "values": scores})
    line = {"color": scores, "colorscale": COLOUR_SCALE, "showscale": False}
    layout = {
        "height": 430,
        "margin": {"l": 70, "r": 50, "t": 60, "b": 30},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "font": {"size": 12},
    }
    return {
        "title": "Settings and scores",
        "kind": "parallel",
        "data": [{"type": "parcoords", "dimensions": axes, "line": line, "labelangle": -12}],
        "layout": layout,
    }


def _axis(name: str, values: list[Any]) -> dict[str, Any]:
    """Numbers as they are, or by their logarithm if they span more than a factor of 20; all else by its place."""
    label = plain_text(name.rpartition(".")[2].replace("_", " "))
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) == len(values) and len(set(numbers)) > 1:
        if min(numbers) > 0 and max(numbers) > 20 * min(numbers):
            powers = [math.log10(value) for value in numbers]
            low, high = min(powers), max(powers)
            ticks = [low + step * (high - low) / 4 for step in range(5)]
            return {
                "label": label,
                "values": powers,
                "tickvals": ticks,
                "ticktext": [f"{10**tick:.2g}" for tick in ticks],
            }
        return {"label": label, "values": numbers}
    texts = sorted({_short(value) for value in values})
    places = [texts.index(_short(value)) for value in values]
    return {
        "label": label,
        "values": places,
        "tickvals": list(range(len(texts))),
        "ticktext": [plain_text(text) for text in texts],
    }


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
