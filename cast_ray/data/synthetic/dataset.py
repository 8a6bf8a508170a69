"""How the embedded dataset lies on disk: videos and annotations in a known layout, the same bytes per seed."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from cast_ray.data.manifest import TRAIN, VALIDATION
from cast_ray.data.synthetic.classes import NOUNS, SOUNDS, VERBS, Labels, balanced_labels
from cast_ray.data.synthetic.encode import encode_mp4
from cast_ray.data.synthetic.scene import draw_scene, render
from cast_ray.data.synthetic.sound import draw_sound
from cast_ray.errors import UserError

__all__ = ["Layout", "SyntheticDataset", "encode_clip", "write_dataset"]

Layout = Literal["ssv2", "ek100", "table"]

SPLITS = (TRAIN, VALIDATION)
TEMPLATES = (
    "Moving [something] to the left",
    "Moving [something] to the right",
    "Moving [something] up",
    "Moving [something] down",
    "[Something] growing",
    "[Something] shrinking",
)
"""Something-Something-V2 templates in the order of `VERBS`."""
EK100_COLUMNS = (
    "narration_id",
    "participant_id",
    "video_id",
    "narration_timestamp",
    "start_timestamp",
    "stop_timestamp",
    "start_frame",
    "stop_frame",
    "narration",
    "verb",
    "verb_class",
    "noun",
    "noun_class",
    "all_nouns",
    "all_noun_classes",
)
SEGMENTS_PER_VIDEO = 50
TABLE_COLUMNS = ("clip", "verb", "noun", "sound")
"""The plain layout of `cast_ray.data.catalog.table`."""
SOUNDS_FILE = "sounds.csv"
# decord 0.6 takes frames of these widths for four-channel images and cannot read them.
UNREADABLE_SIZES = (24, 48, 72)


@dataclass(frozen=True, kw_only=True)
class SyntheticDataset:
    """Where a written dataset lies."""

    videos: Path
    """Folder with one mp4 per clip."""
    annotations: Path
    """Folder with the layout's annotation files, and sounds.csv (clip_id, sound, sound_class)."""

    @classmethod
    def below(cls, root: Path) -> SyntheticDataset:
        """The places in a dataset's folder, written or not."""
        return cls(videos=root / "videos", annotations=root / "annotations")

    @property
    def complete(self) -> bool:
        """Whether everything is written: sounds.csv is the last file."""
        return (self.annotations / SOUNDS_FILE).is_file()


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipSpec:
    """What one clip file is made from."""

    clip_id: str
    split: str
    index: int
    labels: Labels
    seed: int
    size: int
    num_frames: int
    frames_per_second: int
    silent: bool = False
    """Whether the file has no sound track; its sound label stays, and nobody can know it."""


def write_dataset(
    root: Path | str,
    *,
    layout: Layout,
    train_clips: int,
    validation_clips: int,
    seed: int = 0,
    size: int = 40,
    num_frames: int = 16,
    frames_per_second: int = 12,
    silent_share: float = 0.0,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> SyntheticDataset:
    """Render, encode and annotate the embedded dataset under `root`.

    Every clip depends on (seed, split, index) alone, the label lists on (seed, split) and the number of clips.

    Args:
        root: folder to write into; it is made if missing and must not hold a complete dataset yet.
        layout: "ssv2" labels the verb (as a template), "ek100" verb and noun, "table" verb, noun and sound.
        train_clips: number of clips of the training split.
        validation_clips: number of clips of the validation split.
        seed: another seed gives other clips.
        size: height and width of the frames in pixels, divisible by 4.
        num_frames: frames per clip.
        frames_per_second: of the video; sound lasts as long as the frames.
        silent_share: share of each split's clips, drawn at random, whose files have no sound track.
        workers: processes that render; 1 renders in this process.
        progress: called with (clips written, clips in all).

    Raises:
        UserError: a number makes no sense, or `root` already holds a dataset.
    """
    _check(layout, train_clips, validation_clips, size, num_frames, frames_per_second, workers)
    if not 0 <= silent_share <= 1:
        raise UserError(f"silent_share is {silent_share}; it must be a share between 0 and 1")
    root = Path(root)
    dataset = SyntheticDataset.below(root)
    if dataset.complete:
        raise UserError(f"'{root}' already holds a dataset; give another folder or remove it first")
    dataset.videos.mkdir(parents=True, exist_ok=True)
    dataset.annotations.mkdir(parents=True, exist_ok=True)
    specs = [
        ClipSpec(
            clip_id=_clip_id(layout, split, index),
            split=split,
            index=index,
            labels=labels,
            seed=seed,
            size=size,
            num_frames=num_frames,
            frames_per_second=frames_per_second,
            silent=index in silent,
        )
        for split, count in zip(SPLITS, (train_clips, validation_clips), strict=True)
        for silent in [_silent_clips(seed, split, count, silent_share)]
        for index, labels in enumerate(_shuffled_labels(seed, split, count))
    ]
    _write_clips(specs, dataset.videos, workers, progress)
    annotate = {"ssv2": _annotate_ssv2, "ek100": _annotate_ek100, "table": _annotate_table}[layout]
    annotate(dataset.annotations, specs)
    rows = ((spec.clip_id, SOUNDS[spec.labels.sound], spec.labels.sound) for spec in specs)
    _write_csv(dataset.annotations / SOUNDS_FILE, ("clip_id", "sound", "sound_class"), rows)
    return dataset


def encode_clip(spec: ClipSpec) -> bytes:
    """Render and encode one clip."""
    seeds = np.random.SeedSequence([spec.seed, SPLITS.index(spec.split), spec.index]).spawn(2)
    seen, heard = (np.random.default_rng(seed) for seed in seeds)
    scene = draw_scene(seen, verb=spec.labels.verb, noun=spec.labels.noun, num_frames=spec.num_frames, size=spec.size)
    sound = None
    if not spec.silent:
        sound = draw_sound(heard, spec.labels.sound, spec.num_frames / spec.frames_per_second)
    return encode_mp4(render(scene), frames_per_second=spec.frames_per_second, sound=sound)


def _check(
    layout: str,
    train_clips: int,
    validation_clips: int,
    size: int,
    num_frames: int,
    frames_per_second: int,
    workers: int,
) -> None:
    if layout not in get_args(Layout):
        raise UserError(f"layout '{layout}' is unknown; use one of {list(get_args(Layout))}")
    counts = {
        "train_clips": train_clips,
        "validation_clips": validation_clips,
        "frames_per_second": frames_per_second,
        "workers": workers,
    }
    for name, value in counts.items():
        if value < 1:
            raise UserError(f"{name} is {value}; it must be at least 1")
    if num_frames < 2:
        raise UserError(f"num_frames is {num_frames}; a motion needs at least 2 frames")
    if size < 20 or size % 4 or size in UNREADABLE_SIZES:
        raise UserError(
            f"size is {size}; use a multiple of 4 from 20 on, except {list(UNREADABLE_SIZES)}, which decord cannot read"
        )


def _shuffled_labels(seed: int, split: str, count: int) -> list[Labels]:
    order = np.random.default_rng([seed, SPLITS.index(split)]).permutation(count)
    return [balanced_labels(int(position)) for position in order]


def _silent_clips(seed: int, split: str, count: int, share: float) -> set[int]:
    order = np.random.default_rng([seed, SPLITS.index(split), 1]).permutation(count)
    return set(order[: round(share * count)].tolist())


def _write_clips(
    specs: Sequence[ClipSpec], videos: Path, workers: int, progress: Callable[[int, int], None] | None
) -> None:
    write = partial(_write_clip, videos=videos)
    if workers == 1:
        _count(map(write, specs), len(specs), progress)
        return
    # Not fork: the parent may run threads (Ray, torch), and forking those can hang.
    with ProcessPoolExecutor(workers, mp_context=get_context("forkserver")) as pool:
        _count(pool.map(write, specs, chunksize=16), len(specs), progress)


def _write_clip(spec: ClipSpec, *, videos: Path) -> None:
    (videos / f"{spec.clip_id}.mp4").write_bytes(encode_clip(spec))


def _count(written: Iterable[None], total: int, progress: Callable[[int, int], None] | None) -> None:
    for done, _ in enumerate(written, start=1):
        if progress is not None:
            progress(done, total)


def _clip_id(layout: Layout, split: str, index: int) -> str:
    if layout == "ssv2":
        return str(1 + index + (0 if split == TRAIN else 1_000_000))
    if layout == "table":
        return f"{split}-{index:06d}"
    return f"{_video_id(split, index)}_{index % SEGMENTS_PER_VIDEO}"


def _video_id(split: str, index: int) -> str:
    participant = "P01" if split == TRAIN else "P02"
    return f"{participant}_{101 + index // SEGMENTS_PER_VIDEO}"


def _annotate_ssv2(annotations: Path, specs: Sequence[ClipSpec]) -> None:
    _write_json(annotations / "labels.json", {_plain(name): str(index) for index, name in enumerate(TEMPLATES)})
    for split in SPLITS:
        entries = []
        for spec in specs:
            if spec.split == split:
                template, thing = TEMPLATES[spec.labels.verb], NOUNS[spec.labels.noun]
                label = template.replace("[something]", thing).replace("[Something]", thing)
                entry = {"id": spec.clip_id, "label": label, "template": template, "placeholders": [thing]}
                entries.append(entry)
        _write_json(annotations / f"{split}.json", entries)


def _annotate_ek100(annotations: Path, specs: Sequence[ClipSpec]) -> None:
    for kind, names in (("verb", VERBS), ("noun", NOUNS)):
        classes = [(index, name, f"['{name}']", "synthetic") for index, name in enumerate(names)]
        _write_csv(annotations / f"EPIC_100_{kind}_classes.csv", ("id", "key", "instances", "category"), classes)
    for split in SPLITS:
        rows = [_ek100_row(spec) for spec in specs if spec.split == split]
        _write_csv(annotations / f"EPIC_100_{split}.csv", EK100_COLUMNS, rows)


def _ek100_row(spec: ClipSpec) -> tuple[object, ...]:
    verb, noun = VERBS[spec.labels.verb], NOUNS[spec.labels.noun]
    first = spec.index % SEGMENTS_PER_VIDEO * spec.num_frames
    last = first + spec.num_frames
    start, stop = (_timestamp(frame / spec.frames_per_second) for frame in (first, last))
    video_id = _video_id(spec.split, spec.index)
    where = (spec.clip_id, video_id[:3], video_id, start, start, stop, first + 1, last)
    return (*where, f"{verb} {noun}", verb, spec.labels.verb, noun, spec.labels.noun, f"['{noun}']", [spec.labels.noun])


def _annotate_table(annotations: Path, specs: Sequence[ClipSpec]) -> None:
    for split in SPLITS:
        rows = [
            (f"{spec.clip_id}.mp4", VERBS[spec.labels.verb], NOUNS[spec.labels.noun], SOUNDS[spec.labels.sound])
            for spec in specs
            if spec.split == split
        ]
        _write_csv(annotations / f"{split}.csv", TABLE_COLUMNS, rows)


def _timestamp(seconds: float) -> str:
    hundredths = round(seconds * 100)
    return f"00:{hundredths // 6000:02d}:{hundredths // 100 % 60:02d}.{hundredths % 100:02d}"


def _plain(template: str) -> str:
    return template.replace("[", "").replace("]", "")


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=0) + "\n")


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])
