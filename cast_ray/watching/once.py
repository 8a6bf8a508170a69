"""Which figures are new, where a program cannot take back those of steps that an interrupted run repeats."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

__all__ = ["Once"]


class Once:
    """The last step of every figure."""

    def __init__(self) -> None:
        self._last: dict[str, int] = {}

    def new(self, step: int, figures: Mapping[str, float]) -> dict[str, float]:
        """Those that were not logged for this step or a later one."""
        return {name: value for name, value in figures.items() if step > self._last.get(name, -1)}

    def logged(self, step: int, names: Iterable[str]) -> None:
        """Remember that these were logged."""
        for name in names:
            self._last[name] = max(step, self._last.get(name, -1))
