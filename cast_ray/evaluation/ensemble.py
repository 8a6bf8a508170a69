"""What several finished runs say together: probabilities averaged, or each label field from the run that knows it.

The CAST paper's baselines of independent experts (arXiv 2311.18825, table 1a) take nouns from the spatial expert and
verbs from the temporal one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from cast_ray.errors import UserError
from cast_ray.evaluation.alignment import aligned_rows
from cast_ray.evaluation.metrics import evaluate
from cast_ray.evaluation.predictions import Predictions, read_predictions, write_predictions

__all__ = ["combine", "parse_take", "run"]


def combine(runs: Mapping[str, Predictions], take: Mapping[str, int] | None = None) -> Predictions:
    """The joint predictions of runs over the same clips, in the first run's order.

    Args:
        runs: predictions by a name for error messages.
        take: for a label field, the number from 0 of the only run that it is read from; every other field is the mean
            over all runs.

    Raises:
        UserError: there are fewer than two runs, their label maps, clips or true labels differ, or `take` names a
            field or run that does not exist.
    """
    names, all_predictions = list(runs), list(runs.values())
    if len(names) < 2:
        raise UserError(f"an ensemble needs two runs or more; {names} given")
    first = all_predictions[0]
    aligned = [aligned_rows(names[0], first, name, other) for name, other in runs.items()]
    chosen = _check_take(take or {}, first, names)
    rows = np.stack([other.num_views[order] for other, order in zip(all_predictions, aligned, strict=True)])
    used = sorted({*chosen.values()} if chosen.keys() == {*first.label_map.fields} else range(len(names)))
    probabilities = {}
    for field in first.label_map.fields:
        sources = [chosen[field]] if field in chosen else range(len(names))
        parts = np.stack([all_predictions[index].probabilities[field][aligned[index]] for index in sources])
        probabilities[field] = parts.astype(np.float64).mean(axis=0).astype(np.float32)
    return Predictions(
        clip_ids=first.clip_ids,
        labels=first.labels,
        probabilities=probabilities,
        num_views=rows[used].sum(axis=0).astype(np.int32),
        label_map=first.label_map,
        checkpoint="+".join(all_predictions[index].checkpoint for index in used),
    )


def parse_take(choices: Sequence[str]) -> dict[str, int]:
    """Run numbers by label field, of texts such as `noun=0`.

    Raises:
        UserError: a text has another form, or a field occurs twice.
    """
    take: dict[str, int] = {}
    for choice in choices:
        field, separator, number = choice.partition("=")
        if not (field and separator and number.isdecimal()):
            raise UserError(f"--take has '{choice}'; write FIELD=NUMBER with the run's place from 0, such as noun=0")
        if field in take:
            raise UserError(f"--take has '{field}' twice; name one run for each field")
        take[field] = int(number)
    return take


def run(paths: Sequence[Path], *, take: Sequence[str], output: Path | None, console: Console) -> int:
    """Read, combine, print the metrics of every run and of the ensemble, and perhaps write it; the exit status.

    Raises:
        UserError: a run cannot be read or given twice, or as `combine` and `parse_take`.
    """
    chosen = parse_take(take)
    runs: dict[str, Predictions] = {}
    for path in paths:
        if str(path) in runs:
            raise UserError(f"'{path}' is given twice; give every run once")
        runs[str(path)] = read_predictions(path)
    joint = combine(runs, chosen)
    _show(runs, joint, chosen, console)
    if output is not None:
        write_predictions(output, joint)
        console.print(f"predictions: {output}", soft_wrap=True, highlight=False, markup=False)
    return 0


def _check_take(take: Mapping[str, int], first: Predictions, names: Sequence[str]) -> dict[str, int]:
    for field, number in take.items():
        if field not in first.label_map.fields:
            raise UserError(f"--take has the field '{field}'; the runs have {list(first.label_map.fields)}")
        if number >= len(names):
            raise UserError(f"--take has run {number} for '{field}'; there are the runs 0 to {len(names) - 1}")
    return dict(take)


def _show(runs: Mapping[str, Predictions], joint: Predictions, take: Mapping[str, int], console: Console) -> None:
    """A row of figures for every run and for the ensemble."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("")
    table.add_column("run", overflow="fold")
    summaries = {name: evaluate(predictions).summary() for name, predictions in runs.items()}
    together = evaluate(joint).summary()
    for figure in together:
        table.add_column(figure.replace("_", " "), justify="right")
    for number, (name, summary) in enumerate(summaries.items()):
        table.add_row(str(number), name, *(f"{summary[figure]:.1%}" for figure in together))
    parts = [f"{field} from {number}" for field, number in take.items()]
    table.add_row(
        "", f"ensemble ({', '.join(parts)})" if parts else "ensemble", *(f"{x:.1%}" for x in together.values())
    )
    console.print(f"{len(joint.clip_ids)} clips")
    console.print(table)
