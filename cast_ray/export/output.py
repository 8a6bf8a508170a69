"""Where an exported file goes: checked before minutes of work, and there only when it is complete."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import pyarrow.fs as pafs
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from cast_ray.data.storage import check_writable, filesystem, retried, written_whole
from cast_ray.errors import UserError

__all__ = ["Sink", "check_output", "copy_output", "write_output"]

CHUNK = 2**24
"""Bytes that are copied at once."""


class Sink(Protocol):
    """Whatever bytes can be written to."""

    def write(self, content: Any, /) -> Any: ...


def check_output(output: str, *, suffix: str, force: bool) -> None:
    """Raise `UserError` if the file cannot be written.

    Args:
        output: path or URI.
        suffix: how its name must end.
        force: a file that is there may be replaced.
    """
    remote = "://" in output
    place, mark, options = output.partition("?") if remote else (output, "", "")
    if not place.endswith(suffix):
        raise UserError(f"--output is '{output}'; give a name that ends in {suffix}")
    if remote and "/" not in place.split("://", 1)[1]:
        raise UserError(f"--output '{output}' names no file in a bucket; give one such as s3://bucket/model{suffix}")
    storage, path = filesystem(output)
    kind = retried(lambda: storage.get_file_info(path), what=output).type
    if kind == pafs.FileType.Directory:
        raise UserError(f"--output '{output}' is a folder; give the name of a file")
    if kind == pafs.FileType.File and not force:
        raise UserError(f"--output '{output}' is there already; give another name, or --force to replace it")
    check_writable(f"{place.rpartition('/')[0]}{mark}{options}" if remote else str(Path(path).parent))


def write_output(
    output: str, total: int, write: Callable[[Sink, Callable[[int], None]], object], console: Console
) -> None:
    """Write a file, which has its name only when it is complete.

    Args:
        output: path or URI.
        total: bytes of what `write` tells.
        write: is given where to write to, and a function that it tells the bytes that it wrote.
        console: where progress goes.
    """
    storage, path = filesystem(output)
    columns = TextColumn("writing"), BarColumn(), DownloadColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=total)

        def attempt() -> None:
            with written_whole(storage, path) as sink:
                write(sink, lambda size: progress.advance(task, size))

        retried(attempt, what=output, before_retry=lambda: progress.reset(task))


def copy_output(output: str, file: Path, console: Console) -> None:
    """Write a local file's content as `write_output` does."""

    def copy(sink: Sink, wrote: Callable[[int], None]) -> None:
        with file.open("rb") as source:
            while chunk := source.read(CHUNK):
                sink.write(chunk)
                wrote(len(chunk))

    write_output(output, file.stat().st_size, copy, console)
