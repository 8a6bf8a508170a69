"""How a job is told where its clips are: videos with annotations, or a prepared dataset."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import tyro
from rich.console import Console

from cast_ray.data.catalog.entries import OnSkip, refuse
from cast_ray.errors import UserError

__all__ = ["SourceFlags", "on_skip", "say"]


@dataclass(frozen=True, kw_only=True)
class SourceFlags:
    """Flags of every job that takes either."""

    required: ClassVar[tuple[str, ...]] = ("data", "annotations")
    """Flags without which the job cannot read clips."""
    reading: ClassVar[tuple[str, ...]] = ("leave_out",)
    """Flags that say how clips are read, and mean nothing for a prepared dataset."""

    data: str | None = None
    """Folder with the videos."""
    annotations: str | None = None
    """Folder with the annotation files."""
    shards: str | None = None
    """Path or URI of a dataset that jobs/prepare_data.py has written, instead of --data and --annotations."""
    leave_out: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Go on without the clips that cannot be used, such as those without a video file, and say which they are."""

    def check_source(self) -> None:
        """Raise `UserError` unless the data is given in exactly one way."""
        given = [_flag(name) for name in ("data", "annotations") if getattr(self, name) is not None]
        if self.shards is not None and given:
            raise UserError(f"--shards '{self.shards}' and {' and '.join(given)} are given; leave one of them away")
        missing = [_flag(name) for name in self.required if getattr(self, name) is None]
        if self.shards is None and missing:
            needed = " and ".join(map(_flag, self.required))
            raise UserError(
                f"{' and '.join(missing)} not given; give {needed}, or --shards with a dataset that is prepared already"
            )
        idle = [_flag(name) for name in self.reading if getattr(self, name)]
        if self.shards is not None and idle:
            raise UserError(f"{idle[0]} concerns the reading of --data, but --shards is given; leave it away")

    def on_skip(self, console: Console) -> OnSkip:
        """What to do with clips that cannot be used: say so and go on with --leave-out, else stop."""
        return on_skip(console, leave_out=self.leave_out)


def on_skip(console: Console, *, leave_out: bool) -> OnSkip:
    """What to do with clips that cannot be used: say so and go on without them, or stop."""
    return (lambda sentence: say(console, "left out", sentence)) if leave_out else refuse


def say(console: Console, kind: str, sentence: str) -> None:
    """Print a sentence about the data as it is, in one line."""
    console.print(f"{kind}: {sentence}", soft_wrap=True, highlight=False, markup=False)


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
