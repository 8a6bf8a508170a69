"""The command `cast-ray predict`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Annotated

import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from cast_ray.command_line import parse
from cast_ray.data.decode import Unreadable
from cast_ray.data.file_loader import ABSENT, is_absent
from cast_ray.errors import UserError
from cast_ray.evaluation.device import Device
from cast_ray.inference.recogniser import Precision, Recogniser, check_views
from cast_ray.inference.show import Result, UnreadableClip, as_dict, show
from cast_ray.inference.sliding import slide
from cast_ray.inference.sources import find_clips
from cast_ray.inference.timeline import THRESHOLD, Timeline
from cast_ray.weights.moved import MovedWeights

__all__ = ["main"]

DESCRIPTION = """Name what is in video files, or when it is in them.

Examples: cast-ray predict clip.mp4 --checkpoint runs/ssv2;
cast-ray predict clips/ more.mkv --checkpoint model.safetensors --top 3 --json;
cast-ray predict hour.mp4 --checkpoint runs/k400 --sliding --window-s 4 --stride-s 2 --output timeline

Exit status: 0, or 1 if a clip could not be read (the others are predicted), 2 if nothing could be done."""
UNREADABLE_STATUS = 1
SHARED_VIEWS = (1, 1)
"""Of one window: the windows overlap, so that every moment is seen several times anyway."""


@dataclass(frozen=True, kw_only=True)
class Predict:
    """Flags of `cast-ray predict`."""

    clips: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Video files, and folders whose videos are meant; paths or URIs."""
    checkpoint: str
    """Folder or URI of a run (its best checkpoint is taken) or of a checkpoint, or a file of `cast-ray export`."""
    top: int = 5
    """Classes to show."""
    json: bool = False
    """Print JSON: a list with one object per clip, in which unreadable ones have "error" instead of "top"."""
    device: Device = "auto"
    """Where to compute; auto takes a GPU if there is one."""
    precision: Precision = "float32"
    """Number format of the network."""
    views: tuple[int, int] | None = None
    """Views of each clip: how many along time, and 1 or 3 crops. None: as in the run's test; with --sliding 1 1."""
    sliding: bool = False
    """Slide a window over each video, and print the segments in which a class stays on top."""
    window_s: float | None = None
    """With --sliding: seconds that the model sees at once; None: as it was trained (dense sampling, sound), or 4."""
    stride_s: float | None = None
    """With --sliding: seconds from one place of the window to the next; None: half a window."""
    threshold: float = THRESHOLD
    """With --sliding: least probability of a class that counts as seen."""
    output: str | None = None
    """With --sliding: folder of this machine for the timeline of each video as .json, .csv, .png and .svg."""
    time_limit_s: float = 60.0
    """Seconds after which reading a clip (of a long one, a minute of it) is given up."""
    weights: MovedWeights = field(default_factory=MovedWeights)

    def __post_init__(self) -> None:
        if self.top < 1:
            raise UserError(f"--top is {self.top}; give 1 or more")
        if self.views is not None:
            check_views(self.views)
        if self.time_limit_s <= 0:
            raise UserError(f"--time-limit-s is {self.time_limit_s:g}; give a number of seconds above 0")
        if not 0 <= self.threshold <= 1:
            raise UserError(f"--threshold is {self.threshold:g}; give a probability, 0 to 1")
        for name in ("window_s", "stride_s", "output"):
            if getattr(self, name) is not None and not self.sliding:
                raise UserError(f"--{name.replace('_', '-')} goes with --sliding; add that, or leave it away")
        if self.output is not None and "://" in self.output:
            raise UserError(f"--output is '{self.output}'; give a folder of this machine")


def main(arguments: list[str]) -> int:
    """Run `cast-ray predict ARGUMENTS`; returns the exit status.

    Raises:
        UserError: an unknown flag, no clip, no checkpoint, or one that cannot be loaded.
    """
    settings = parse(
        Predict,
        Predict(clips=tyro.MISSING, checkpoint=tyro.MISSING),
        description=DESCRIPTION,
        arguments=arguments,
        program="cast-ray predict",
    )
    messages = Console(stderr=True)
    clips = find_clips(settings.clips, say=lambda text: messages.print(Text(text), soft_wrap=True))
    with messages.status("loading the model"):
        model = Recogniser.load(
            settings.checkpoint,
            device=settings.device,
            precision=settings.precision,
            views=SHARED_VIEWS if settings.sliding and settings.views is None else settings.views,
            time_limit_s=settings.time_limit_s,
            moved=settings.weights,
        )
    if settings.sliding:
        results = _timelines(model, clips, settings, messages)
    else:
        results = _predictions(model, clips, settings, messages)
    unreadable, shown = 0, []
    for result in results:
        unreadable += isinstance(result, UnreadableClip)
        if settings.json:
            shown.append(as_dict(result, top=settings.top, threshold=settings.threshold))
        else:
            show(result, top=settings.top, threshold=settings.threshold)
    if settings.json:
        print(json.dumps(shown, indent=2, ensure_ascii=False))  # noqa: T201
    if unreadable and len(clips) > 1:
        messages.print(f"{unreadable} of {len(clips)} clips could not be read", style="yellow", highlight=False)
    return UNREADABLE_STATUS if unreadable else 0


def _predictions(model: Recogniser, clips: list[str], settings: Predict, messages: Console) -> Iterator[Result]:
    with _bar(messages, "clips") as progress:
        # Tables show by themselves how far it is; JSON comes at the end.
        task = progress.add_task("", total=len(clips), visible=len(clips) > 1 and settings.json)
        for clip in clips:
            try:
                result: Result = model.predict(clip)
            except (Unreadable, UserError) as error:
                result = _unreadable(clip, error)
            progress.advance(task)
            yield result


def _timelines(model: Recogniser, clips: list[str], settings: Predict, messages: Console) -> Iterator[Result]:
    for clip, name in zip(clips, _file_names(clips), strict=True):
        try:
            with _bar(messages, clip) as progress:
                task = progress.add_task("", total=None)
                timeline = slide(
                    model,
                    clip,
                    window_s=settings.window_s,
                    stride_s=settings.stride_s,
                    progress=lambda done, total: progress.update(task, completed=done, total=total),  # noqa: B023
                )
        except (Unreadable, UserError) as error:
            yield _unreadable(clip, error)
            continue
        if settings.output is not None:
            _write(timeline, Path(settings.output), name, settings)
        yield timeline


def _unreadable(clip: str, error: Unreadable | UserError) -> UnreadableClip:
    """The clip with its reason; any other error, such as that of a storage that does not answer, is raised again."""
    if isinstance(error, Unreadable):
        return UnreadableClip(clip=clip, reason=error.reason)
    if is_absent(error):
        return UnreadableClip(clip=clip, reason=ABSENT)
    raise error


def _bar(messages: Console, what: str) -> Progress:
    columns = TextColumn(what, markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    # What goes to the standard output must not come out beside the bar: it may be meant for a file.
    return Progress(*columns, console=messages, transient=True, disable=not messages.is_terminal, redirect_stdout=False)


def _file_names(clips: list[str]) -> list[str]:
    """A name for the files of each clip: its own without suffix, numbered where several have the same."""
    names: list[str] = []
    for clip in clips:
        stem = name = PurePosixPath(clip.partition("?")[0]).stem
        count = 1
        while name in names:
            count += 1
            name = f"{stem}-{count}"
        names.append(name)
    return names


def _write(timeline: Timeline, folder: Path, name: str, settings: Predict) -> None:
    from cast_ray.inference.timeline_plot import draw_timeline

    try:
        folder.mkdir(parents=True, exist_ok=True)
        files = {suffix: folder / f"{name}{suffix}" for suffix in (".json", ".csv", ".png", ".svg")}
        files[".json"].write_text(timeline.to_json(threshold=settings.threshold, top=settings.top), encoding="utf-8")
        files[".csv"].write_text(timeline.to_csv(threshold=settings.threshold), encoding="utf-8")
        draw_timeline(timeline, [files[".png"], files[".svg"]], threshold=settings.threshold)
    except OSError as error:
        raise UserError(
            f"cannot write to --output '{folder}': {error}; give a folder that may be written to"
        ) from error
