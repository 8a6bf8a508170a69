"""How the embedded dataset is written from a terminal: with a progress bar, and only once."""

from __future__ import annotations

import os
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from cast_ray.data.synthetic.dataset import Layout, SyntheticDataset, write_dataset

__all__ = ["synthesize"]


def synthesize(
    folder: Path,
    *,
    layout: Layout,
    train_clips: int,
    validation_clips: int,
    seed: int,
    console: Console,
    silent_share: float = 0.0,
) -> SyntheticDataset:
    """The dataset in `folder`, written on all cores unless a complete one is there; arguments as `write_dataset`."""
    dataset = SyntheticDataset.below(folder)
    if dataset.complete:
        console.print(f"clips: written before, in {folder}", soft_wrap=True)
        return dataset
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("clips: rendering")

        def show(done: int, total: int) -> None:
            if done == 1 and not console.is_terminal:
                console.print(f"clips: rendering {total}")
            bar.update(task, completed=done, total=total)

        write_dataset(
            folder,
            layout=layout,
            train_clips=train_clips,
            validation_clips=validation_clips,
            seed=seed,
            silent_share=silent_share,
            workers=os.cpu_count() or 1,
            progress=show,
        )
    console.print(f"clips: {train_clips} to train on and {validation_clips} held out, in {folder}", soft_wrap=True)
    return dataset
