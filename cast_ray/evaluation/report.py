"""What a finished run looks like to its reader: one self-contained HTML page."""

from __future__ import annotations

import base64
import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go
from jinja2.utils import htmlsafe_json_dumps
from plotly.offline import get_plotlyjs

from cast_ray.evaluation import plots
from cast_ray.evaluation.metrics import Metrics, evaluate
from cast_ray.evaluation.predictions import Predictions
from cast_ray.labels import LABEL

__all__ = ["RunRecord", "Video", "choose_examples", "write_report"]

_MAX_QUARANTINED = 200
_MAX_CONFUSIONS = 6


@dataclass(frozen=True, kw_only=True)
class Video:
    """An encoded video that a browser can play."""

    data: bytes
    mime: str = "video/mp4"


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """Everything that the report shows about one run."""

    name: str
    config: Mapping[str, Any]
    """The run's configuration, nested; values must have a readable `str`."""
    history: Sequence[Mapping[str, Any]]
    """The run's log: records of kind "step" (step, epoch, loss, learning_rate, clips_per_s, data_wait from 0 to 1,
    grad_norm) and of kind "epoch" (epoch, step, validation: loss and the `<field>_top1` accuracies)."""
    predictions: Predictions
    """Of the best checkpoint on the validation split."""
    videos: Mapping[str, Video] = field(default_factory=dict)
    """Clip id -> video, for the few clips to show (see `choose_examples`)."""
    quarantined: Sequence[tuple[str, str]] = ()
    """(clip id, reason) of the clips that could not be read."""
    seconds: float
    """Duration of the run."""

    def __post_init__(self) -> None:
        unknown = self.videos.keys() - set(self.predictions.clip_ids)
        if unknown:
            raise ValueError(f"videos without a prediction: {sorted(unknown)[:3]}")


def choose_examples(predictions: Predictions, *, count: int = 12) -> tuple[str, ...]:
    """Ids of up to `count` clips to show: half wrong, half right as far as there are, spread over the true classes."""
    by_class = np.lexsort(predictions.labels.T[::-1])
    right = predictions.right()[by_class]
    groups = [by_class[~right], by_class[right]]
    num_wrong = min(len(groups[0]), max(count // 2, count - len(groups[1])))
    rows = [_spread(group, size) for group, size in zip(groups, (num_wrong, count - num_wrong), strict=True)]
    return tuple(predictions.clip_ids[row] for row in np.concatenate(rows))


def write_report(run: RunRecord, destination: Path) -> Path:
    """Write the report as one HTML file that works offline; returns `destination`.

    The file holds everything it needs (about 5 MB of it is plotly.js), and is visible only when it is complete.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("report.html.j2").render(_context(run))
    destination.parent.mkdir(parents=True, exist_ok=True)
    partial = destination.with_name(f".{destination.name}.partial")
    try:
        partial.write_text(page, encoding="utf-8")
        os.replace(partial, destination)
    finally:
        partial.unlink(missing_ok=True)
    return destination


def _context(run: RunRecord) -> dict[str, Any]:
    """What the template is filled with."""
    metrics = evaluate(run.predictions)
    curves = _curves(run.history)
    matrices = {
        name: plots.confusion_figure(of_field.confusion, run.predictions.label_map.names[name])
        for name, of_field in metrics.fields.items()
    }
    figures = {f"curve-{name}": figure for name, (_, figure) in curves.items()}
    figures |= {f"confusion-{name}": figure for name, figure in matrices.items()}
    views = np.unique(run.predictions.num_views)
    return {
        "name": run.name,
        "headlines": _headlines(metrics),
        "facts": _facts(run, metrics),
        "metrics": metrics,
        "curves": {name: title for name, (title, _) in curves.items()},
        "confusions": {name: _confusions(run.predictions, metrics, name) for name in metrics.fields},
        "examples": _examples(run),
        "quarantined": run.quarantined[:_MAX_QUARANTINED],
        "num_quarantined": len(run.quarantined),
        "config": _config_groups(run.config),
        "checkpoint": run.predictions.checkpoint,
        "label_map": run.predictions.label_map.fingerprint,
        "views": str(views[0]) if len(views) == 1 else f"{views[0]} to {views[-1]}",
        # Encoded so that no text in the data can end the script element.
        "figures": {name: htmlsafe_json_dumps(figure, dumps=go.Figure.to_json) for name, figure in figures.items()},
        "templates": htmlsafe_json_dumps(plots.TEMPLATES),
        "plotly_js": get_plotlyjs(),
    }


def _headlines(metrics: Metrics) -> list[dict[str, Any]]:
    """Top-1 accuracies with their chance levels."""
    rows = [
        {"name": "top-1" if name == LABEL else name, "value": of_field.top1, "chance": of_field.chance}
        for name, of_field in metrics.fields.items()
    ]
    if metrics.action_top1 is not None:
        rows.append({"name": "action", "value": metrics.action_top1, "chance": metrics.action_chance})
    return rows


def _facts(run: RunRecord, metrics: Metrics) -> list[tuple[str, str]]:
    """The small numbers under the headlines."""
    rates = [record["clips_per_s"] for record in run.history if record.get("clips_per_s")]
    return [
        ("clips evaluated", f"{metrics.num_clips:,}"),
        ("unreadable clips", f"{len(run.quarantined):,}"),
        ("duration", _duration(run.seconds)),
        ("training clips/s", f"{statistics.median(rates):,.4g}" if rates else "unknown"),
    ]


def _curves(history: Sequence[Mapping[str, Any]]) -> dict[str, tuple[str, go.Figure]]:
    """Name -> (title, figure) of the learning curves that have data."""
    curves = {
        "loss": ("Loss", plots.loss_figure(history)),
        "validation": ("Validation accuracy", plots.validation_figure(history)),
        "rate": ("Learning rate", plots.learning_rate_figure(history)),
        "wait": ("Time spent waiting for data", plots.data_wait_figure(history)),
    }
    return {name: (title, figure) for name, (title, figure) in curves.items() if figure.data}


def _confusions(predictions: Predictions, metrics: Metrics, name: str) -> list[dict[str, Any]]:
    """The most frequent mistakes of one field, for readers who cannot use the matrix."""
    names, confusion = predictions.label_map.names[name], metrics.fields[name].confusion
    mistakes = confusion - np.diag(confusion.diagonal())
    order = np.argsort(-mistakes, axis=None, kind="stable")[:_MAX_CONFUSIONS]
    cells = [(int(row), int(column)) for row, column in zip(*np.unravel_index(order, mistakes.shape), strict=True)]
    return [
        {"true": names[row], "predicted": names[column], "count": int(mistakes[row, column])}
        for row, column in cells
        if mistakes[row, column]
    ]


def _examples(run: RunRecord) -> list[dict[str, Any]]:
    """The clips to show, wrong ones first."""
    predictions, right = run.predictions, run.predictions.right()
    rows = [row for row, clip_id in enumerate(predictions.clip_ids) if clip_id in run.videos]
    examples = []
    for row in sorted(rows, key=lambda row: bool(right[row])):
        video = run.videos[predictions.clip_ids[row]]
        answers = []
        for column, (name, names) in enumerate(predictions.label_map.names.items()):
            probabilities = predictions.probabilities[name][row]
            true, best = int(predictions.labels[row, column]), int(probabilities.argmax())
            answers.append(
                {
                    "field": name,
                    "true": names[true],
                    "predicted": names[best],
                    "probability": float(probabilities[best]),
                    "right": true == best,
                }
            )
        source = f"data:{video.mime};base64,{base64.b64encode(video.data).decode()}"
        examples.append(
            {"clip_id": predictions.clip_ids[row], "right": bool(right[row]), "answers": answers, "source": source}
        )
    return examples


def _config_groups(config: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """The configuration as titled groups of (key, value): one group per top-level section, deeper keys dotted."""
    scalars = {key: value for key, value in config.items() if not isinstance(value, Mapping)}
    groups = [("run", _flatten(scalars))] if scalars else []
    return groups + [(key, _flatten(value)) for key, value in config.items() if isinstance(value, Mapping)]


def _flatten(section: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for key, value in section.items():
        if isinstance(value, Mapping) and value:
            rows += _flatten(value, f"{prefix}{key}.")
        else:
            rows.append((f"{prefix}{key}", _readable(value)))
    return rows


def _readable(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return ", ".join(_readable(item) for item in value) or "none"
    return str(value)


def _duration(seconds: float) -> str:
    """Two units are enough: `2 h 5 min`, `7 min 12 s`, `41 s`."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _spread(rows: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int64]:
    """`count` of the rows at even distances, or all if there are fewer."""
    if len(rows) <= count:
        return rows
    return rows[np.arange(count) * len(rows) // count]
