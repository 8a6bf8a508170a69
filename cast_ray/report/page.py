"""How a report becomes one HTML file that works offline: what the template and the script are given."""

from __future__ import annotations

import base64
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from jinja2.utils import htmlsafe_json_dumps
from plotly.offline import get_plotlyjs

from cast_ray.data.storage import filesystem, written_whole
from cast_ray.errors import UserError
from cast_ray.evaluation.bootstrap import Interval
from cast_ray.labels import LABEL
from cast_ray.report.charts import COLOURS, BarChart, Chart, LineChart
from cast_ray.report.confusion import frequent_mistakes
from cast_ray.report.contents import Contents, figure_words, letters
from cast_ray.report.examples import pattern_name
from cast_ray.report.interactive import TEMPLATES, figure
from cast_ray.report.record import RunRecord, Video
from cast_ray.report.settings import between_runs, closest_recipe, readable

__all__ = ["GENERATOR", "write_report"]

GENERATOR = "cast-ray report"
"""Stands in every page that this program wrote."""
MOST_QUARANTINED, MOST_MISTAKES = 200, 6
MOST_NARROW, LONG_LABEL = 24, 28
HERE = Path(__file__).parent


def write_report(contents: Contents, place: str, *, recipe: str | None = None) -> str:
    """Write the report as one HTML file that works offline; returns its place.

    The file holds everything it needs (about 5 MB of it is plotly.js), and is visible only when it is complete.

    Args:
        contents: of the report.
        place: path or URI of the file; missing folders are made.
        recipe: that the configurations are compared with; None: the closest to each.

    Raises:
        UserError: there is no such recipe, the place cannot be written, or a file is there that is no report.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("page.html.j2").render(_context(contents, recipe))
    storage, path = filesystem(place)
    _check_replaceable(storage, path, place)
    try:
        storage.create_dir(path.rpartition("/")[0], recursive=True)
        with written_whole(storage, path) as sink:
            sink.write(page.encode())
    except OSError as error:
        raise UserError(f"cannot write the report to '{place}': {error}; give a file that you may write") from error
    return place


def _check_replaceable(storage: Any, path: str, place: str) -> None:
    """Raise `UserError` if there is a file that some other program, or a person, wrote."""
    info = storage.get_file_info(path)
    if info.is_file and info.size:
        with storage.open_input_stream(path) as source:
            if f'<meta name="generator" content="{GENERATOR}">'.encode() not in source.read(2000):
                raise UserError(f"'{place}' is there and is no report; give another file with --output")
    elif info.type.name == "Directory":
        raise UserError(f"'{place}' is a folder; give a file, such as '{place}/report.html'")


def _context(contents: Contents, recipe: str | None) -> dict[str, Any]:
    """What the template is filled with."""
    keys = letters(len(contents.runs))
    return {
        "generator": GENERATOR,
        "runs": [_run(key, *one) for key, one in zip(keys, _pairs(contents), strict=True)],
        "fields": list(contents.runs[0].predictions.label_map.fields),
        "num_clips": contents.assessed[0].metrics.num_clips,
        "level": f"{100 * contents.level:g}",
        "headlines": _headlines(contents) if len(contents.runs) == 1 else [],
        "figures_table": _figures_table(contents),
        "slots": contents.sections,
        "heights": {name: _height(chart) for name, chart in contents.charts.items()},
        "wide": {name for name, chart in contents.charts.items() if _is_wide(chart)},
        "orders": {
            name: list(chart.orders)
            for name, chart in contents.charts.items()
            if not isinstance(chart, LineChart | BarChart)
        },
        "mistakes": _mistakes(contents, keys),
        "classes": _classes(contents),
        **_examples(contents, keys),
        "quarantined": [
            {"key": key, "name": run.name, "rows": run.quarantined[:MOST_QUARANTINED], "all": len(run.quarantined)}
            for key, run in zip(keys, contents.runs, strict=True)
            if run.quarantined is not None
        ],
        "attention": [
            {"key": key, "name": run.name, "pictures": [_picture(one) for one in run.attention.pictures]}
            for key, run in zip(keys, contents.runs, strict=True)
            if run.attention.pictures
        ],
        **_settings(contents, keys, recipe),
        "label_map": contents.runs[0].predictions.label_map.fingerprint,
        # Encoded so that no text in the data can end the script element.
        "data": htmlsafe_json_dumps(
            {
                "figures": {name: figure(chart) for name, chart in contents.charts.items()},
                "templates": TEMPLATES,
            },
            separators=(",", ":"),
        ),
        "css": (HERE / "page.css").read_text(encoding="utf-8"),
        "script": (HERE / "page.js").read_text(encoding="utf-8"),
        "plotly_js": get_plotlyjs(),
    }


def _pairs(contents: Contents) -> list[tuple[int, RunRecord]]:
    return list(enumerate(contents.runs))


def _run(key: str, index: int, run: RunRecord) -> dict[str, Any]:
    """A row of the table of runs."""
    rates = [record["clips_per_s"] for record in run.history if record.get("clips_per_s")]
    views = np.unique(run.predictions.num_views)
    model = run.config.get("model")
    return {
        "key": key,
        "colour": COLOURS[index],
        "name": run.name,
        "model": str(model.get("name", "")) if isinstance(model, Mapping) else "",
        "views": str(views[0]) if len(views) == 1 else f"{views[0]} to {views[-1]}",
        "duration": None if run.seconds is None else _duration(run.seconds),
        "speed": f"{statistics.median(rates):,.4g}" if rates else None,
        "unreadable": None if run.quarantined is None else f"{len(run.quarantined):,}",
        "checkpoint": run.predictions.checkpoint,
    }


def _height(chart: Chart) -> int:
    """Pixels that the page keeps free until a chart is drawn."""
    return int(figure(chart)["layout"]["height"]) if isinstance(chart, BarChart) else 300


def _is_wide(chart: Chart) -> bool:
    """Whether a chart needs the whole width of the page."""
    if not isinstance(chart, BarChart):
        return False
    return max(map(len, chart.labels)) > LONG_LABEL if chart.horizontal else len(chart.labels) > MOST_NARROW


def _headlines(contents: Contents) -> list[dict[str, Any]]:
    """Top-1 accuracies of the only run with intervals and chance levels."""
    one = contents.assessed[0]
    chances = {f"{name}_top1": of_field.chance for name, of_field in one.metrics.fields.items()}
    if one.metrics.action_chance is not None:
        chances["action_top1"] = one.metrics.action_chance
    return [
        {"name": figure_words(name).capitalize(), "chance": chance, **_interval(one.figures[name])}
        for name, chance in chances.items()
    ]


def _figures_table(contents: Contents) -> list[dict[str, Any]]:
    """A row for each figure with a cell for each run."""
    rows: list[dict[str, Any]] = []
    for name in contents.assessed[0].figures:
        cells = [
            _interval(one.figures[name])
            | {"difference": _interval(one.differences[name]) if name in one.differences else None}
            for one in contents.assessed
        ]
        rows.append({"name": figure_words(name), "cells": cells})
    for field in contents.assessed[0].metrics.fields:
        values = [one.metrics.fields[field].calibration_error for one in contents.assessed]
        cells = [{"value": value, "low": None, "high": None, "difference": None} for value in values]
        title = "calibration error" if field == LABEL else f"{field} calibration error"
        rows.append({"name": title, "cells": cells})
    return rows


def _interval(one: Interval) -> dict[str, Any]:
    return {"value": one.value, "low": one.low, "high": one.high, "sure": one.excludes_zero}


def _mistakes(contents: Contents, keys: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """Field -> the most frequent mistakes of each run, for readers who cannot use the matrix."""
    return {
        field: [
            {
                "key": key,
                "name": run.name,
                "rows": [
                    (names[one.true], names[one.predicted], one.clips)
                    for one in frequent_mistakes(assessed.metrics.fields[field].confusion, most=MOST_MISTAKES)
                ],
            }
            for key, run, assessed in zip(keys, contents.runs, contents.assessed, strict=True)
        ]
        for field, names in contents.runs[0].predictions.label_map.names.items()
    }


def _classes(contents: Contents) -> dict[str, list[dict[str, Any]]]:
    """Field -> a row for each class: clips, and precision, recall and F1 of the only run, or F1 of every run."""
    tables = {}
    for field, names in contents.runs[0].predictions.label_map.names.items():
        of_runs = [one.metrics.fields[field].per_class for one in contents.assessed]
        columns = [one.f1 for one in of_runs]
        if len(of_runs) == 1:
            columns = [of_runs[0].precision, of_runs[0].recall, of_runs[0].f1]
        tables[field] = [
            {"name": name, "clips": int(of_runs[0].support[index]), "values": [float(one[index]) for one in columns]}
            for index, name in enumerate(names)
        ]
    return tables


def _examples(contents: Contents, keys: Sequence[str]) -> dict[str, Any]:
    """The clips to show, those that fewest runs have right first, and what they can be filtered by."""
    first = contents.runs[0].predictions
    videos: dict[str, Video] = {}
    for run in reversed(contents.runs):
        videos |= run.videos
    right = np.stack([run.predictions.right() for run in contents.runs])
    rows = [row for row, clip_id in enumerate(first.clip_ids) if clip_id in videos]
    rows.sort(key=lambda row: (int(right[:, row].sum()), [not one for one in right[:, row]]))
    patterns: dict[str, list[Any]] = {}
    classes: dict[str, dict[int, str]] = {field: {} for field in first.label_map.fields}
    examples = []
    for row in rows:
        pattern = "".join(str(int(one)) for one in right[:, row])
        words = pattern_name(right[:, row].tolist(), [key if len(keys) > 1 else "" for key in keys])
        patterns.setdefault(pattern, [words, 0])[1] += 1
        truth = {}
        for field, names in first.label_map.names.items():
            true = int(first.true(field)[row])
            classes[field][true] = truth[field] = names[true]
        video = videos[first.clip_ids[row]]
        examples.append(
            {
                "clip_id": first.clip_ids[row],
                "pattern": pattern,
                "right": words,
                "some": "1" in pattern,
                "labels": " ".join(f"{field}:{int(first.true(field)[row])}" for field in truth),
                "truth": truth,
                "answers": [_answers(key, run, row) for key, run in zip(keys, contents.runs, strict=True)],
                "source": _data_uri(video.mime, video.data),
                "poster": None if video.poster is None else _data_uri("image/jpeg", video.poster),
            }
        )
    listed = {field: sorted(of_field.items(), key=lambda pair: pair[1]) for field, of_field in classes.items()}
    return {"examples": examples, "patterns": patterns, "example_classes": listed}


def _answers(key: str, run: RunRecord, row: int) -> dict[str, Any]:
    """What a run says about a clip, field by field."""
    fields = []
    for field, names in run.predictions.label_map.names.items():
        probabilities = run.predictions.probabilities[field][row]
        best = int(probabilities.argmax())
        fields.append(
            {
                "field": field,
                "predicted": names[best],
                "probability": float(probabilities[best]),
                "right": best == int(run.predictions.true(field)[row]),
            }
        )
    return {"key": key, "name": run.name, "fields": fields, "right": all(one["right"] for one in fields)}


def _picture(picture: Any) -> dict[str, str | bool]:
    return {
        "clip_id": picture.clip_id,
        "title": picture.title,
        "caption": picture.caption,
        "film": picture.mime.startswith("video/"),
        "source": _data_uri(picture.mime, picture.data),
    }


def _settings(contents: Contents, keys: Sequence[str], recipe: str | None) -> dict[str, Any]:
    known = [(key, run) for key, run in zip(keys, contents.runs, strict=True) if run.config]
    return {
        "between": between_runs([run.config for _, run in known]) if len(known) > 1 else [],
        "configured": [
            {
                "key": key,
                "name": run.name,
                "from_recipe": closest_recipe(run.config, recipe),
                "groups": _config_groups(run.config),
            }
            for key, run in known
        ],
    }


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
            rows.append((f"{prefix}{key}", readable(value)))
    return rows


def _data_uri(mime: str, data: bytes) -> str:
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"


def _duration(seconds: float) -> str:
    """Two units are enough: `2 h 5 min`, `7 min 12 s`, `41 s`."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
