"""Which settings led to a run of a population, from the first epoch on, and whose they were.

A trial that goes on from another one's checkpoint does so in a new run, which has all settings up to there in its
`lineage.json`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow.fs as pafs

from cast_ray.data.storage import filesystem, joined, read_bytes, written_whole
from cast_ray.tuning.results import RUN, TrialResult

__all__ = [
    "Lineage",
    "Stage",
    "read_lineage",
    "run_name",
    "schedule_rows",
    "takeover_rows",
    "trial_of",
    "with_lineage",
    "write_lineage",
]

LINEAGE_FILE = "lineage.json"


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Settings that hold from an epoch on."""

    after: int
    """Epochs that were over when they began to hold."""
    trial: str
    """That trained with them."""
    taken_from: str | None
    """The trial whose checkpoint was gone on from; None: it began anew."""
    values: Mapping[str, Any]
    """By dotted name of the setting."""


Lineage = tuple[Stage, ...]
"""One stage after the other, the first from epoch 0 on."""


def run_name(trial: str, after: int, what: str) -> str:
    """Name of the run with which a trial goes on from another one's checkpoint.

    Args:
        trial: its name, which has no hyphen.
        after: epochs done.
        what: text that differs for another checkpoint, or other settings.
    """
    return f"{trial}-e{after:03d}-{hashlib.sha256(what.encode()).hexdigest()[:6]}"


def trial_of(run: str) -> str:
    """The name of the trial that a run belongs to."""
    return run.partition("-")[0]


def write_lineage(folder: str, lineage: Lineage) -> None:
    """Keep it in a run's folder, which is made if missing; what is there stays.

    Args:
        folder: path or URI of the run.
        lineage: up to the run's own settings.
    """
    storage, path = filesystem(folder)
    if storage.get_file_info(f"{path}/{LINEAGE_FILE}").type != pafs.FileType.File:
        storage.create_dir(path, recursive=True)
        with written_whole(storage, f"{path}/{LINEAGE_FILE}") as sink:
            sink.write(json.dumps([dataclasses.asdict(stage) for stage in lineage], indent=2).encode())


def read_lineage(folder: str) -> Lineage:
    """What `write_lineage` kept; `UserError` if there is nothing."""
    return tuple(Stage(**stage) for stage in json.loads(read_bytes(joined(folder, LINEAGE_FILE))))


def with_lineage(results: Sequence[TrialResult], folder: str) -> tuple[TrialResult, ...]:
    """The results of a population with what each trial took over, and the settings that led to its best score.

    Args:
        results: of the trials; those without a report stay as they are.
        folder: path or URI of all runs.
    """
    return tuple(_one(result, folder) if result.reports else result for result in results)


def _one(result: TrialResult, folder: str) -> TrialResult:
    runs = list(dict.fromkeys(str(report[RUN]) for report in result.reports))
    lineages = {run: read_lineage(joined(folder, run)) for run in runs}
    schedule = lineages[str(result.best_report[RUN])]
    takeovers = tuple(lineage[-1] for lineage in lineages.values() if lineage[-1].taken_from is not None)
    return dataclasses.replace(result, values=schedule[-1].values, schedule=schedule, takeovers=takeovers)


def takeover_rows(results: Sequence[TrialResult]) -> list[Stage]:
    """All takeovers of a population, in the order of epochs."""
    return sorted((stage for result in results for stage in result.takeovers), key=lambda stage: stage.after)


def schedule_rows(result: TrialResult) -> list[tuple[str, Stage]]:
    """The epochs with the settings that held in them, up to the best score: ("1 to 4", ...); empty if none changed."""
    if len(result.schedule) < 2:
        return []
    ends = [stage.after for stage in result.schedule[1:]] + [int(result.best_report["epoch"])]
    return [
        (f"{stage.after + 1} to {end}" if end > stage.after + 1 else str(end), stage)
        for stage, end in zip(result.schedule, ends, strict=True)
    ]
