"""Which clips make which part of the predictions, and when a part is complete; knows no files and no Ray.

A clip's `row` is its number in the order of all clips, which is the same in every run of the same command. Part p has
the rows from p * clips_per_part on, so that a part that is there names the clips that need no work.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["CLIPS_PER_PART", "ROW", "VALID", "Assembler", "Columns", "PartPlan"]

CLIPS_PER_PART = 512
ROW, VALID = "row", "valid"
"""Columns that every batch has: the clip's number, and whether it could be read."""

Columns = Mapping[str, npt.NDArray[Any]]
"""A table, by column: arrays with equal first axes."""


@dataclass(frozen=True, kw_only=True)
class PartPlan:
    """How the rows are cut into parts."""

    clips: int
    clips_per_part: int = CLIPS_PER_PART

    @property
    def names(self) -> list[str]:
        """File names of all parts, in order."""
        return [f"part-{part:06d}.parquet" for part in range(-(-self.clips // self.clips_per_part))]

    def size(self, part: int) -> int:
        """Rows of one part."""
        return min(self.clips_per_part, self.clips - part * self.clips_per_part)

    def finished(self, there: Container[str]) -> list[int]:
        """The parts whose files are `there`."""
        return [part for part, name in enumerate(self.names) if name in there]

    def missing_rows(self, finished: Iterable[int]) -> npt.NDArray[np.int64]:
        """The rows of all other parts, in order."""
        missing = np.ones(self.clips, bool)
        for part in finished:
            missing[part * self.clips_per_part :][: self.size(part)] = False
        return np.flatnonzero(missing)


@dataclass(kw_only=True)
class _Open:
    """A part of which some rows have come."""

    there: npt.NDArray[np.bool_]
    batches: list[Columns] = field(default_factory=list)


class Assembler:
    """Puts rows together into whole parts, in whatever order and however often they come.

    Ray does the work of a lost process again, so a row may come twice; the first one counts.
    """

    def __init__(self, plan: PartPlan, finished: Iterable[int] = ()) -> None:
        self._plan = plan
        self._done = set(finished)
        self._open: dict[int, _Open] = {}
        self.clips = 0
        """Rows that have come."""
        self.unreadable = 0
        """Those of them that are not valid."""

    def add(self, batch: Columns) -> list[tuple[int, Columns]]:
        """Take in rows.

        Returns:
            The parts with some of these rows that are whole and not yet written, each with its number, and its rows in
            order. A part is whole until `written` is told of it, so that what failed to be written comes again.
        """
        complete = []
        parts, places = np.divmod(batch[ROW], self._plan.clips_per_part)
        for part in np.unique(parts).tolist():
            if part in self._done:
                continue
            opened = self._open.setdefault(part, _Open(there=np.zeros(self._plan.size(part), bool)))
            of_part = np.flatnonzero(parts == part)
            _, first = np.unique(places[of_part], return_index=True)
            new = of_part[first]
            new = new[~opened.there[places[new]]]
            opened.there[places[new]] = True
            opened.batches.append({name: values[new] for name, values in batch.items()})
            self.clips += len(new)
            self.unreadable += int((~batch[VALID][new].astype(bool)).sum())
            if opened.there.all():
                complete.append((part, _in_order(opened.batches)))
        return complete

    def is_written(self, part: int) -> bool:
        """Whether no row of the part is needed any more."""
        return part in self._done

    def written(self, part: int) -> None:
        """The part is in its file; its rows are dropped."""
        self._done.add(part)
        del self._open[part]


def _in_order(batches: list[Columns]) -> Columns:
    columns = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
    order = np.argsort(columns[ROW])
    return {name: values[order] for name, values in columns.items()}
